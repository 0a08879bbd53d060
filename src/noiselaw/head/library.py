"""`kernel.cpp` as a loaded library: compiled on first use for this very processor, kept in the user's cache.

The source needs no headers but the compiler's own and takes about a second. The library's name is a digest of all it
depends on: source, compiler, flags, processor. It is written whole or not at all, so that processes which build it at
the same time do not disturb each other. It uses the OpenMP threads that torch has loaded; linking another OpenMP would
give each its own threads, spinning on the same cores.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch  # noqa: F401  (the library finds torch's OpenMP among the symbols that this import makes global)

from noiselaw.files import write_atomically

SOURCE = Path(__file__).with_name("kernel.cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC")
X86_FLAGS = ("-mprefer-vector-width=512",)
"""Compilers otherwise stop at half of AVX-512."""
COMPILE_SECONDS = 300.0
"""After which a compiler counts as hung."""


@dataclass(frozen=True, slots=True)
class Library:
    """The loaded kernel."""

    functions: ctypes.CDLL
    compiler: str
    """How the compiler calls itself."""


class BuildError(Exception):
    """Why there is no compiled kernel."""


@cache
def find_library() -> Library | str:
    """The compiled kernel, from the cache or built now. Where that fails, the reason in words: it is no error."""
    try:
        return load_or_build(find_compiler(), cache_folder())
    except (BuildError, OSError) as error:
        return str(error)


def cache_folder() -> Path:
    """NOISELAW_CACHE, by default `noiselaw` in the user's cache folder (XDG_CACHE_HOME, by default ~/.cache).

    Raises BuildError for a user without a home.
    """
    chosen = os.environ.get("NOISELAW_CACHE")
    if chosen:
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "noiselaw"
    except RuntimeError as error:
        raise BuildError(f"{error} set NOISELAW_CACHE") from None


def find_compiler() -> list[str]:
    """The C++ compiler to run, with arguments: CXX, by default the first of the usual names."""
    chosen = shlex.split(os.environ.get("CXX", ""))
    for command in [chosen] if chosen else [["g++"], ["c++"], ["clang++"]]:
        if shutil.which(command[0]):
            return command
    wanted = f"CXX is {chosen[0]!r}, which is not there" if chosen else "no C++ compiler (g++, c++, clang++) is there"
    raise BuildError(f"{wanted}; install one or set CXX")


def load_or_build(compiler: list[str], folder: Path) -> Library:
    """The kernel that `compiler` makes, out of `folder` where it already is. Raises BuildError or OSError."""
    version = _run([*compiler, "--version"]).splitlines()[0]
    flags = [*FLAGS, *(X86_FLAGS if platform.machine() in ("x86_64", "AMD64") else ())]
    identity = [SOURCE.read_text(encoding="utf-8"), version, *compiler, *flags, _processor()]
    digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:16]
    path = folder / f"head-{digest}.so"
    if path.exists():
        _refuse_foreign(path)
        try:
            return Library(ctypes.CDLL(str(path)), version)
        except OSError:
            pass  # damaged: build it again
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_foreign(folder)
    built = _compile(compiler, flags)
    write_atomically(path, lambda stream: stream.write(built))
    return Library(ctypes.CDLL(str(path)), version)


def _compile(compiler: list[str], flags: list[str]) -> bytes:
    """The bytes of the shared library."""
    with tempfile.TemporaryDirectory(prefix="noiselaw-") as name:
        compiled, linked = Path(name) / "kernel.o", Path(name) / "kernel.so"
        _run([*compiler, *flags, "-c", str(SOURCE), "-o", str(compiled)])
        _run([*compiler, "-shared", str(compiled), "-o", str(linked)])  # without -fopenmp, which would link its own
        return linked.read_bytes()


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMPILE_SECONDS)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise BuildError(f"{shlex.join(command)} took over {COMPILE_SECONDS:.0f} s; set CXX to another one") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"exit status {error.returncode}"]
        raise BuildError(f"{shlex.join(command)} failed: {lines[-1]}") from None
    return done.stdout


def _processor() -> str:
    """What -march=native depends on: architecture, model and the instructions it offers."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else [platform.processor()]
    told = {line.split(":")[0].strip(): line for line in lines}
    names = ("vendor_id", "cpu family", "model", "model name", "flags", "Features", "CPU part")
    return "\n".join([platform.machine(), *(told[name] for name in names if name in told)])


def _refuse_foreign(path: Path) -> None:
    """Raise BuildError where somebody else could have written `path`: code is loaded from it."""
    status = path.stat()
    if status.st_uid not in (0, os.getuid()) or status.st_mode & 0o022:
        raise BuildError(
            f"{path} belongs to or can be written by others; delete it or set NOISELAW_CACHE to a folder of yours"
        )
