"""The Triton kernels, in processes of their own: Triton chooses between GPU and interpreter when it is imported."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent
pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="triton comes with a torch for NVIDIA GPUs; else: make test-extras"
)


def run(*command: str, **environment: str) -> None:
    whole = {**os.environ, **environment}
    arguments = [sys.executable, *command]
    done = subprocess.run(arguments, env=whole, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_kernels_equal_the_reference():
    """On a GPU where there is one, else by Triton's interpreter on the CPU."""
    interpret = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    run("-m", "pytest", "-q", "-n0", str(FOLDER / "tritonsuite.py"), **interpret)


def test_kernels_compile_for_a_gpu_that_is_not_there(tmp_path: Path):
    run(str(FOLDER / "tritoncompile.py"), TRITON_CACHE_DIR=str(tmp_path))
