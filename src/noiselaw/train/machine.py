"""What the machine can do: the rate of large matrix products, and which library makes those of float32 on a CPU."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from noiselaw.head.kernels import describe_kernel
from noiselaw.specs import Float32Products, RuntimeSpec

MAX_PRODUCT_ERROR = 1e-5
"""Relative error of a product that still counts as float32: float32 reaches 3e-7 here, bfloat16 2e-3."""


def choose_float32_products(setting: Float32Products, device: torch.device) -> str:
    """The library for float32 matrix products on a CPU, by `RuntimeSpec.float32_products`: "torch" or "onednn".

    torch's own choice (MKL) leaves half the speed of some CPUs unused. oneDNN takes over once it is allowed to round to
    bfloat16; a CPU without bfloat16 tiles (AMX) has no use for that and computes in float32 all the same. `auto`
    believes only what it measures: oneDNN where the error of its products is that of float32.
    """
    if setting != "auto":
        return setting
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return "torch"
    with float32_products("onednn"):
        return "onednn" if product_error() < MAX_PRODUCT_ERROR else "torch"


@contextmanager
def float32_products(library: str) -> Iterator[None]:
    """Within the block float32 products on a CPU are made by `library`, "torch" or "onednn"."""
    switch = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue]  (set at run time)
    before = switch.fp32_precision
    switch.fp32_precision = "bf16" if library == "onednn" else "ieee"
    try:
        yield
    finally:
        switch.fp32_precision = before


def product_error(sizes: tuple[tuple[int, int, int], ...] = ((512, 512, 512), (2048, 64, 256))) -> float:
    """Largest relative error (Frobenius norm) of float32 products [m, k] @ [k, n] against float64, over `sizes`."""
    generator = torch.Generator().manual_seed(0)
    errors = []
    for m, k, n in sizes:
        left, right = torch.randn(m, k, generator=generator), torch.randn(k, n, generator=generator)
        exact = left.double() @ right.double()
        errors.append(float(((left @ right).double() - exact).norm() / exact.norm()))
    return max(errors)


def resolve_device(name: str) -> torch.device:
    """`auto` is cuda where there is one, else cpu. Raises ValueError for a device this machine lacks."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"runtime.device is {name!r}, no device torch knows; use auto, cpu or cuda") from error
    num_gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= num_gpus:
        raise ValueError(f"runtime.device is {name!r} but torch sees {num_gpus or 'no'} GPU; use cpu or auto")
    return device


def num_started() -> int:
    """Processes that share this run: those of the process group, or those that torchrun started; else 1."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def own_device(runtime: RuntimeSpec) -> torch.device:
    """Where this process computes: as `resolve_device`, and of several processes each has a GPU of its own.

    Raises ValueError where there are not enough.
    """
    device = resolve_device(runtime.device)
    if device.type != "cuda" or num_started() == 1:
        return device
    if device.index is not None:
        raise ValueError(f"runtime.device is {device} but {num_started()} processes run: set it to cuda or auto")
    num_here, num_gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if num_here > num_gpus:
        raise ValueError(
            f"{num_here} processes of the run are on this machine, which has {num_gpus} GPU; start at most as many as "
            "there are (torchrun --nproc-per-node)"
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def matmul_flops_per_second(device: torch.device, dtype: torch.dtype, size: int | None = None) -> float:
    """Best rate of timed square matrix products of side `size` (512 on CPU, 8192 on GPU), FLOPs per second.

    Runs with the threads torch has now, for MEASURE_SECONDS or three timings after the first, whichever is longer.
    """
    is_gpu = device.type == "cuda"
    size, repeats = size or (8192 if is_gpu else 512), 8 if is_gpu else 1
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def seconds() -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            torch.mm(left, right)
        if is_gpu:
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / repeats

    seconds()
    measured = [seconds() for _ in range(MIN_TIMINGS)]
    while sum(measured) * repeats < MEASURE_SECONDS:
        measured.append(seconds())
    return 2 * size**3 / min(measured)


MIN_TIMINGS = 3
MEASURE_SECONDS = 0.1


def slow_bfloat16(device: torch.device) -> str | None:
    """Why not to train in bfloat16 on `device`: a CPU that has no units for it, measured; None where it pays."""
    if device.type != "cpu":
        return None
    single, half = (matmul_flops_per_second(device, dtype, size=256) for dtype in (torch.float32, torch.bfloat16))
    if half >= single:
        return None
    return (
        f"bfloat16 products run at {half / 1e9:.2g} GFLOP/s on this processor, those of float32 at {single / 1e9:.3g}: "
        "it has no units for bfloat16; --precision float32 is faster"
    )


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a run computes."""

    device: torch.device
    float32_products: str
    head_kernel: str
    """Description of the kernel that runs."""

    @staticmethod
    def of(runtime: RuntimeSpec) -> "Machine":
        """The machine as `runtime` asks for it. Raises ValueError for a device or a kernel this machine lacks."""
        device = own_device(runtime)
        return Machine(
            device=device,
            float32_products=choose_float32_products(runtime.float32_products, device),
            head_kernel=describe_kernel(runtime.head_kernel, device),
        )

    def facts(self, dtype: torch.dtype, num_processes: int = 1) -> dict[str, Any]:
        """For a record: processor or GPU, cores, versions, choices, and the measured rate of products of `dtype`.

        The rate is that of this machine times the number of processes that compute the run.
        """
        is_gpu = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if is_gpu else _cpu_name(),
            "num_cores": os.cpu_count(),
            "num_threads": torch.get_num_threads(),
            "num_processes": num_processes,
            "float32_products": self.float32_products,
            "head_kernel": self.head_kernel,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "matmul_flops_per_second": matmul_flops_per_second(self.device, dtype) * num_processes,
        }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            names = [line.split(":", 1)[1].strip() for line in stream if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
