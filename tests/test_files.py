import errno
import fcntl
import os
import subprocess
import sys
import threading
import time

import pytest

from noiselaw.files import (
    FolderInUseError,
    only_writer,
    read_json,
    read_record,
    remove_leftovers,
    write_atomically,
    write_json,
    write_text,
)


def test_round_trip(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"x": [1, 2.5, None]}


def test_nan_is_refused_and_old_content_kept(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, {"x": float("nan")})
    assert read_json(path) == {"x": 1}


def test_full_disk_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fill(stream):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"No space left on device.*free space"):
        write_atomically(path, fill)
    assert path.read_text(encoding="utf-8") == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_interruption_leaves_nothing_behind(tmp_path):
    def interrupt(stream):
        stream.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.txt", interrupt)
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path; from noiselaw.files import write_atomically\n"
        "write_atomically(Path(sys.argv[1]), lambda stream: os.kill(os.getpid(), signal.SIGKILL))"
    )
    write_text(tmp_path / "kept.json", "1")
    write_text(tmp_path / ".hidden", "2")
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "big.bin")], check=False)
    assert len(list(tmp_path.iterdir())) == 3
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "absent")
    assert sorted(item.name for item in tmp_path.iterdir()) == [".hidden", "kept.json"]


def test_a_writer_clears_what_a_killed_one_left_of_the_same_file_and_no_living_ones(tmp_path):
    for name in (".a.txt.1.tmp", ".b.txt.1.tmp", ".a.txt.2.tmp"):
        (tmp_path / name).write_text("half", encoding="utf-8")
    with (tmp_path / ".a.txt.2.tmp").open("rb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        write_text(tmp_path / "a.txt", "whole")
    assert sorted(item.name for item in tmp_path.iterdir()) == [".a.txt.2.tmp", ".b.txt.1.tmp", "a.txt"]


def test_a_record_lacks_nothing_that_is_asked_for(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    assert read_record(path, "x") == {"x": 1}
    with pytest.raises(ValueError, match=r"a\.json: damaged \(lacks y, z\); delete it or restore it"):
        read_record(path, "x", "y", "z")
    write_json(path, [1])
    with pytest.raises(ValueError, match=r"damaged \(lacks x\)"):
        read_record(path, "x")
    with pytest.raises(ValueError, match=r"damaged \(lacks an object\)"):
        read_record(path)


def test_damaged_json_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.json: damaged"):
        read_json(path)
    with pytest.raises(ValueError, match="no such file"):
        read_json(tmp_path / "absent.json")


def test_a_folder_has_one_writer_and_a_killed_one_lets_go(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from noiselaw.files import only_writer\n"
        "with only_writer(Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(FolderInUseError, match="another process is working in this folder"), only_writer(tmp_path):
            pass
        other.kill()
    with only_writer(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_a_writer_waits_for_one_that_is_leaving(tmp_path):
    inside, leaving = threading.Event(), threading.Event()

    def hold():
        with only_writer(tmp_path):
            inside.set()
            time.sleep(0.2)
            leaving.set()

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait()
    with only_writer(tmp_path, wait_seconds=30):
        assert leaving.is_set()
    holder.join()
