"""The compiled kernel: its arithmetic, its threads, and where it comes from when anything about that goes wrong."""

import ctypes
import logging
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from headcases import make_targets, product_case
from torch._subclasses.fake_tensor import FakeTensorMode

from noiselaw.head import kernels, vocabulary_loss
from noiselaw.head.kernels import HeadKernelError, TwoPassKernel, build_kernel, describe_kernel
from noiselaw.head.library import BuildError, Library, find_compiler, find_library, load_or_build
from noiselaw.head.native import Job, NativeKernel


def apply(library: Library, name: str, values: np.ndarray) -> np.ndarray:
    result = values.astype(np.float32)
    getattr(library.functions, name)(ctypes.c_void_p(result.ctypes.data), ctypes.c_int64(len(result)))
    return result


def floats_between(lowest: float, highest: float, step: int) -> np.ndarray:
    """Every `step`-th float32 of a range of positive numbers."""
    first, last = np.array([lowest, highest], np.float32).view(np.uint32)
    return np.arange(first, last + 1, step, dtype=np.uint32).view(np.float32)


def test_exponential_within_its_stated_error(library: Library):
    values = -floats_between(1e-9, 87.0, 97)
    got, exact = apply(library, "noiselaw_exponential", values), np.exp(values.astype(np.float64))
    assert np.abs(got / exact - 1).max() < 2**-23
    ends = apply(library, "noiselaw_exponential", np.array([0.0, -0.0, -87.01, -1e30, -math.inf, math.nan]))
    np.testing.assert_array_equal(ends, [1.0, 1.0, 0.0, 0.0, 0.0, math.nan])


def test_log_one_plus_within_its_stated_error(library: Library):
    values = floats_between(1e-37, math.exp(80), 997)
    got, exact = apply(library, "noiselaw_log_one_plus", values), np.log1p(values.astype(np.float64))
    assert np.abs(got / exact - 1).max() < 2**-23
    assert apply(library, "noiselaw_log_one_plus", np.zeros(1))[0] == 0.0


@pytest.mark.parametrize("noise", ["masked", "balanced", "unigram", "autoregressive"])
def test_number_of_threads_changes_no_bit(noise: str, library: Library):
    results = []
    before = torch.get_num_threads()
    try:
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            targets = make_targets(noise, 512, torch.linspace(-9, 9, 200))
            logits = torch.randn(200, 512, generator=torch.Generator().manual_seed(1))
            kernel = NativeKernel(library, targets, 1.0, logits, wants_gradient=True)
            kernel.process(logits, slice(0, 200))
            losses = kernel.losses()
            results.append((logits, losses.kl, losses.itakura_saito, losses.integrand))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_bfloat16_gradients_round_to_nearest(library: Library):
    """The same float32 gradients as the torch kernel's but for their last digits, so nearly all round alike."""
    targets = make_targets("balanced", 512, torch.linspace(-9, 9, 64))
    logits = torch.randn(64, 512, generator=torch.Generator().manual_seed(1)).bfloat16()
    native, plain = logits.clone(), logits.clone()
    NativeKernel(library, targets, 1.0, native, wants_gradient=True).process(native, slice(0, 64))
    build_kernel("torch", targets, 1.0, plain, wants_gradient=True).process(plain, slice(0, 64))
    assert (native == plain).double().mean() > 0.999
    torch.testing.assert_close(native, plain, rtol=2**-7, atol=1e-9)


@pytest.mark.parametrize("part", ["clean", "noisy"])
@pytest.mark.parametrize("wrong", [-1, 64])
def test_ids_outside_the_vocabulary_are_refused(part: str, wrong: int, library: Library):
    targets = make_targets("balanced", 64, torch.zeros(8))
    getattr(targets, part)[5] = wrong
    logits = torch.zeros(8, 64)
    kernel = NativeKernel(library, targets, 1.0, logits, wants_gradient=True)
    with pytest.raises(IndexError, match="outside the vocabulary of 64"):
        kernel.process(logits, slice(0, 8))
    assert (logits == 0).all()


def test_job_has_no_padding():
    """Both sides of the border count on fields of 8 bytes."""
    assert ctypes.sizeof(Job) == 8 * len(Job._fields_)


def test_tensors_without_memory_get_the_torch_kernel():
    targets = make_targets("balanced", 64, torch.zeros(8))
    with FakeTensorMode():
        logits = torch.empty(8, 64)
    assert isinstance(build_kernel("auto", targets, 1.0, logits, wants_gradient=True), TwoPassKernel)


@pytest.fixture
def no_library(monkeypatch):
    """A machine on which the kernel cannot be built."""
    monkeypatch.setattr(kernels, "find_library", lambda: "no C++ compiler is there")
    kernels._native.cache_clear()
    yield
    kernels._native.cache_clear()


def test_auto_does_without_and_says_so_once(no_library, caplog):
    case = product_case("balanced", torch.linspace(-9, 9, 30)).to(torch.float32)
    with caplog.at_level(logging.WARNING):
        losses = [
            vocabulary_loss(case.hidden, case.weight, 1.0, case.targets, 7, kernel=name).loss
            for name in ("auto", "auto", "torch")
        ]
    assert [record.getMessage() for record in caplog.records] == [
        "head: the PyTorch kernel runs, not the faster native one: no C++ compiler is there"
    ]
    assert torch.equal(losses[0], losses[2])
    assert describe_kernel("auto", torch.device("cpu")) == "torch"


def test_native_by_name_is_an_error_where_it_cannot_be(no_library):
    case = product_case("balanced", torch.linspace(-9, 9, 30)).to(torch.float32)
    with pytest.raises(
        HeadKernelError, match="head_kernel is native but no C\\+\\+ compiler is there; use auto or torch"
    ):
        vocabulary_loss(case.hidden, case.weight, 1.0, case.targets, 7, kernel="native")


def test_description_names_the_compiler(library: Library):
    assert describe_kernel("auto", torch.device("cpu")) == f"native ({library.compiler})"
    assert describe_kernel("torch", torch.device("cpu")) == "torch"


def test_no_compiler(monkeypatch, tmp_path: Path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BuildError, match=r"no C\+\+ compiler .* install one or set CXX"):
        find_compiler()
    monkeypatch.setenv("CXX", "nonesuch -O1")
    with pytest.raises(BuildError, match="CXX is 'nonesuch', which is not there"):
        find_compiler()


def fake_compiler(folder: Path, script: str) -> list[str]:
    """A compiler that says its version, then does what `script` says."""
    path = folder / "fake-c++"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "fake 1.0" && exit 0\n{script}\n')
    path.chmod(0o755)
    return [str(path)]


def test_failing_compiler_is_quoted(tmp_path: Path):
    with pytest.raises(BuildError, match="failed: fatal: no such flag"):
        load_or_build(fake_compiler(tmp_path, 'echo "fatal: no such flag" >&2; exit 1'), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_hanging_compiler_is_stopped(monkeypatch, tmp_path: Path):
    monkeypatch.setattr("noiselaw.head.library.COMPILE_SECONDS", 0.2)
    with pytest.raises(BuildError, match="took over"):
        load_or_build(fake_compiler(tmp_path, "exec sleep 20"), tmp_path / "cache")


def test_cache_that_cannot_be_a_folder(library: Library, monkeypatch, tmp_path: Path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NOISELAW_CACHE", str(tmp_path / "file"))
    find_library.cache_clear()
    try:
        assert "File exists" in find_library()
    finally:
        find_library.cache_clear()


def test_damaged_library_is_built_again(library: Library, tmp_path: Path):
    sound, damaged = tmp_path / "sound", tmp_path / "damaged"
    load_or_build(find_compiler(), sound)
    (built,) = sound.iterdir()
    damaged.mkdir()
    (damaged / built.name).write_bytes(b"not a library")
    load_or_build(find_compiler(), damaged)
    assert (damaged / built.name).read_bytes() == built.read_bytes()


def test_library_that_others_could_write_is_not_loaded(library: Library, tmp_path: Path):
    load_or_build(find_compiler(), tmp_path)
    (built,) = tmp_path.iterdir()
    built.chmod(0o777)
    with pytest.raises(BuildError, match="can be written by others; delete it or set NOISELAW_CACHE"):
        load_or_build(find_compiler(), tmp_path)
    built.unlink()
    tmp_path.chmod(0o777)
    with pytest.raises(BuildError, match="can be written by others"):
        load_or_build(find_compiler(), tmp_path)


def test_two_processes_build_at_once(library: Library, tmp_path: Path):
    code = (
        "from pathlib import Path; from noiselaw.head.library import find_compiler, load_or_build;"
        f"load_or_build(find_compiler(), Path({str(tmp_path / 'cache')!r})).functions.noiselaw_head"
    )
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert len(list((tmp_path / "cache").iterdir())) == 1
