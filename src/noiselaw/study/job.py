"""One run of a study as a process of its own, the same under every executor: `python -m noiselaw.study.job RUN ...`.

It holds the run folder's lease while `noiselaw train` works there, so that a run never trains twice at once whoever
starts it; passes a request to stop on; and notes in the folder how the attempt ended. It imports no torch.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from noiselaw.files import FolderInUseError, read_json
from noiselaw.lease import lease
from noiselaw.study.attempts import EXIT_STOPPED, LOG_NAME, begin, end

EXIT_BUSY = 75
"""Exit code of a job whose run trains elsewhere."""
POLL_SECONDS = 0.1
STOPPING_SECONDS = 15.0
"""How long a job waits for another one on its machine that was told to stop and saves."""
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Launch:
    """How a run starts: alone, or as processes on one or several machines under torchrun."""

    executor: str
    job: str
    """The executor's name for the job."""
    num_processes: int = 1
    """On every node."""
    num_nodes: int = 1
    node: int = 0
    """Which of the nodes this is; the first speaks for the run."""
    rendezvous: str = ""
    """HOST:PORT on the first node."""

    def words(self, folder: Path) -> list[str]:
        """The command that trains the run in `folder`."""
        train = ["noiselaw.cli", "train", str(folder / "spec.json"), "--out", str(folder)]
        if self.num_nodes * self.num_processes == 1:
            return [sys.executable, "-m", *train]
        meeting = ["--standalone"]
        if self.num_nodes > 1:
            meeting = ["--nnodes", str(self.num_nodes), "--node-rank", str(self.node), "--rdzv-id", self.job]
            meeting += ["--rdzv-backend", "c10d", "--rdzv-endpoint", self.rendezvous]
            # Else torchrun guesses, and where the first node does not know its own address nobody answers.
            meeting += ["--rdzv-conf", f"is_host={'false' if self.node else 'true'}"]
        torchrun = [sys.executable, "-m", "torch.distributed.run", *meeting]
        return [*torchrun, "--nproc-per-node", str(self.num_processes), "-m", *train]


def start_job(folder: Path, launch: Launch, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A job as a process of its own, which is told to stop when the thread that calls this dies (Linux)."""
    words = [sys.executable, "-m", "noiselaw.study.job", str(folder), json.dumps(asdict(launch)), str(os.getpid())]
    with (folder / LOG_NAME).open("ab") as log:
        return subprocess.Popen(  # noqa: S603 (our own interpreter, our own arguments)
            words,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )


class Job:
    """A run's training, watched from beside it."""

    def __init__(self, folder: Path, launch: Launch) -> None:
        self._folder, self._launch = folder, launch
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def run(self) -> int:
        """Train, or wait until the other nodes have; the exit code, EXIT_BUSY where another job holds the run."""
        if self._launch.node:
            return self._train()
        try:
            with lease(self._folder, STOPPING_SECONDS, self._end_at_once):
                if (self._folder / "result.json").exists():
                    return 0
                begin(self._folder, self._launch.executor, self._launch.job, socket.gethostname())
                code = self._train()
                end(self._folder, self._reason(code))
                return code
        except FolderInUseError as error:
            print(f"noiselaw: {error}", file=sys.stderr)
            return EXIT_BUSY

    def ask_to_stop(self, signal_number: int = signal.SIGTERM, frame: FrameType | None = None) -> None:
        """Ask the training to save a checkpoint and end. A signal handler."""
        del signal_number, frame
        self._stopping = True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """Ask the training to stop, wait until it has, and note it: whoever calls this may end the job right after."""
        self.ask_to_stop()
        if self._process is None:
            return
        while (code := self._process.poll()) is None:
            time.sleep(POLL_SECONDS)
        if not self._launch.node:
            end(self._folder, self._reason(code))

    def _train(self) -> int:
        if self._stopping:
            return EXIT_STOPPED
        with (self._folder / LOG_NAME).open("ab") as log:
            self._process = start_child(self._launch.words(self._folder), self._environment(), log.fileno())
        if self._stopping:  # asked while it started
            self._process.terminate()
        # Not wait(): a signal handler that waits too would find its lock taken.
        while (code := self._process.poll()) is None:
            time.sleep(POLL_SECONDS)
        return code

    def _environment(self) -> dict[str, str]:
        num_threads = read_json(self._folder / "spec.json")["runtime"]["num_threads"]
        return {**os.environ, "OMP_NUM_THREADS": str(num_threads)}

    def _reason(self, code: int) -> str:
        if code == 0:
            return "done"
        if code == EXIT_STOPPED or self._stopping:
            return "stopped"
        return describe_exit(code)

    def _end_at_once(self, folder: Path) -> None:
        """The lease is lost: another job trains this run, or will in a moment."""
        print(f"noiselaw: {folder}: another job took this run over while this one was cut off", file=sys.stderr)
        sys.stderr.flush()
        if self._process is not None:
            self._process.kill()
        os._exit(EXIT_BUSY)


def describe_exit(code: int) -> str:
    """The exit code, or the signal that ended a process."""
    return f"exit {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def start_child(
    words: list[str],
    environment: dict[str, str],
    output: int,
    *,
    errors: int = subprocess.STDOUT,
    prepare: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """A process of our own program that is told to stop when this one dies (Linux); `prepare` runs in it first."""
    parent = os.getpid()

    def enter() -> None:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm sends its warning to every process of a job
        if prepare is not None:
            prepare()
        stop_with(parent)

    return subprocess.Popen(  # noqa: S603 (our own interpreter, our own arguments)
        words,
        stdout=output,
        stderr=errors,
        stdin=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
        preexec_fn=enter,  # noqa: PLW1509 (nothing in it takes a lock that a thread of ours could hold)
    )


def stop_with(parent: int) -> None:
    """From now on this process gets SIGTERM when its parent dies; it ends at once if that has happened (Linux)."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)


def main() -> int:
    """Carry out the job that the command line describes."""
    folder, launch, parent = sys.argv[1:]
    job = Job(Path(folder), Launch(**json.loads(launch)))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, job.ask_to_stop)
    stop_with(int(parent))
    return job.run()


if __name__ == "__main__":
    sys.exit(main())
