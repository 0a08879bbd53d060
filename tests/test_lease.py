"""One writer a folder: on one machine by the kernel's lock, between machines by a beat that stops."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from noiselaw import lease as lease_module
from noiselaw.files import FolderInUseError, remove_leftovers
from noiselaw.lease import LEASE_NAME, Holder, LeaseWatch, lease

ELSEWHERE = Holder("their-token", "node7", 4321, "another boot", beat=3)


def put(folder, holder):
    """What a process on another machine, whose locks are not seen here, leaves in a folder."""
    (folder / LEASE_NAME).write_text(json.dumps(asdict(holder)))


@pytest.fixture
def quick(monkeypatch):
    """Beats and silences of a fraction of a second."""
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease_module, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(lease_module, "LOOK_SECONDS", 0.02)


def test_a_second_holder_is_refused_and_told_who_is_first(tmp_path):
    with (
        lease(tmp_path),
        pytest.raises(FolderInUseError, match=rf"is working in this folder: process {os.getpid()} on"),
    ):
        lease(tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []
    with lease(tmp_path):
        assert LeaseWatch().look(tmp_path).state == "held"
    assert LeaseWatch().look(tmp_path).state == "free"


HOLD = "import sys, time; from pathlib import Path; from noiselaw.lease import lease\n"


def test_it_ends_with_its_holder_also_after_kill_9(tmp_path):
    code = HOLD + "with lease(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert LeaseWatch().look(tmp_path).state == "held"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert (tmp_path / LEASE_NAME).exists()
    with lease(tmp_path):
        pass


def test_processes_that_want_it_at_once_have_it_one_after_the_other(tmp_path):
    """Each adds 1 to a file twenty times; a third of them leave dead holders behind."""
    (tmp_path / "count").write_text("0")
    code = HOLD + (
        "folder, dies = Path(sys.argv[1]), sys.argv[2] == '1'\n"
        "for turn in range(20):\n"
        "    with lease(folder, 60.0):\n"
        "        count = int((folder / 'count').read_text()); time.sleep(0.001)\n"
        "        (folder / 'count').write_text(str(count + 1))\n"
        "        if dies and turn == 19: import os; os._exit(0)\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(int(index == 0))]) for index in range(3)
    ]
    assert [process.wait(timeout=100) for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "60"


def test_a_holder_on_another_machine_that_fell_silent_has_lost_it(tmp_path, quick):
    put(tmp_path, ELSEWHERE)
    watch = LeaseWatch()
    assert watch.look(tmp_path).state == "unsure"
    started = time.monotonic()
    with lease(tmp_path):
        assert time.monotonic() - started >= 0.5
        assert lease_module._read_path(tmp_path / LEASE_NAME).pid == os.getpid()
    assert watch.look(tmp_path).state == "free"


def test_one_that_beats_keeps_it(tmp_path, quick):
    put(tmp_path, ELSEWHERE)
    stop = threading.Event()

    def beat():
        count = 3
        while not stop.wait(0.05):
            put(tmp_path, replace(ELSEWHERE, beat=(count := count + 1)))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(FolderInUseError, match="process 4321 on node7"):
            lease(tmp_path).__enter__()
    finally:
        stop.set()
        thread.join()
    assert json.loads((tmp_path / LEASE_NAME).read_text())["token"] == "their-token"


def test_a_holder_that_was_cut_off_finds_out_and_leaves_the_new_ones_lease_alone(tmp_path, quick):
    lost = threading.Event()
    with lease(tmp_path, on_lost=lambda folder: lost.set()):
        (tmp_path / LEASE_NAME).unlink()
        put(tmp_path, ELSEWHERE)
        assert lost.wait(10)
    assert lease_module._read_path(tmp_path / LEASE_NAME) == ELSEWHERE


def test_a_living_lease_taken_for_a_dead_one_is_put_back(tmp_path):
    """Two see a dead holder; one clears it and takes the lease, before the other clears what it saw."""
    with lease(tmp_path):
        ours = (tmp_path / LEASE_NAME).read_bytes()
        late = lease_module._Lease(tmp_path)
        late._clear(ELSEWHERE)
        assert (tmp_path / LEASE_NAME).read_bytes() == ours
        assert LeaseWatch().look(tmp_path).state == "held"


def test_a_file_that_says_nothing_counts_as_silent(tmp_path, quick):
    (tmp_path / LEASE_NAME).write_bytes(b"\x00half")
    with lease(tmp_path):
        pass


def test_leftovers_of_killed_processes_are_swept_up(tmp_path):
    for name in (".lease.abc.tmp", ".lease.abc.dead.tmp"):
        (tmp_path / name).write_text("{}")
    with lease(tmp_path):
        remove_leftovers(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [LEASE_NAME]
