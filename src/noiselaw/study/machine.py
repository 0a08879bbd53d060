"""This machine's cores and GPUs, in equal shares for runs side by side. No torch: asking takes milliseconds."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """What one run gets of the machine."""

    cores: tuple[int, ...]
    gpus: tuple[str, ...] = ()
    """As CUDA_VISIBLE_DEVICES names them; several runs may have the same one."""

    @property
    def environment(self) -> dict[str, str]:
        """What a process on this share sees."""
        return {**os.environ, **({"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {})}

    def pin(self, process: int = 0) -> None:
        """Keep a process, by default this one, on its cores (Linux)."""
        if sys.platform == "linux":
            os.sched_setaffinity(process, self.cores)


def shares(num_workers: int, gpus_per_run: float = 1.0) -> list[Share]:
    """This process's cores in `num_workers` equal shares, whatever is left over idle; GPUs in turn, where there are.

    The number of threads decides a run's last digits, so every run gets the same number, whichever share it falls on
    and however often it is continued. A share has `gpus_per_run` GPUs, or one of its own or together with others.
    """
    cores, gpus = available_cores(), visible_gpus()
    size, each = len(cores) // num_workers, max(1, int(gpus_per_run))
    groups = [tuple(gpus[start : start + each]) for start in range(0, len(gpus) - each + 1, each)] or [()]
    return [
        Share(tuple(cores[index * size : (index + 1) * size]), groups[index % len(groups)])
        for index in range(num_workers)
    ]


def available_cores() -> list[int]:
    """The cores this process may use."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs this process may use, by the names CUDA_VISIBLE_DEVICES takes."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name.strip() for name in allowed.split(",") if name.strip() not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    words = [program, "--query-gpu=index", "--format=csv,noheader"]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 (as found on the PATH)
    return answer.stdout.split() if answer.returncode == 0 else []
