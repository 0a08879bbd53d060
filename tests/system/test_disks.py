"""Disks that are full, failing or read-only: one line, nothing half-written, and the same command goes on later."""

import errno
import subprocess

import pytest
from commandline import refused
from stages import STAGES, Desk, half_written

STEPS = (0.2, 0.7)
"""Where the disk gives out: shares of the calls that the command makes."""


@pytest.mark.parametrize(
    ("name", "fault"), [("prepare", errno.ENOSPC), ("train", errno.EIO), ("train", errno.ENOSPC), ("export", errno.EIO)]
)
def test_a_disk_that_gives_out_half_way_is_named_and_nothing_is_lost(name, fault, desk, commands, tmp_path):
    stage, counts = STAGES[name], tmp_path / "counts"
    (tmp_path / "whole").mkdir()
    end = commands.run(stage.begin(desk, tmp_path / "whole"), under=tmp_path / "whole", counts=counts)
    assert end.code == 0, end.output
    calls = int(counts.read_text(encoding="utf-8").split()[0])
    expected = stage.outcome(tmp_path / "whole")
    for share in STEPS:
        victim = tmp_path / f"victim{share}"
        victim.mkdir()
        words = stage.begin(desk, victim)
        end = commands.run(words, under=victim, at=max(1, round(share * calls)), how=fault)
        assert end.code == 2, end.output
        assert end.output.splitlines()[-1].startswith("noiselaw: ")
        assert "Traceback" not in end.output
        assert str(victim) in end.output
        assert "free space or choose another folder" in end.output or fault != errno.ENOSPC
        assert half_written(victim) == []
        end = commands.run(words)
        assert end.code == 0, end.output
        assert stage.outcome(victim) == expected
        assert not list(victim.rglob(".*.tmp"))


@pytest.mark.parametrize("name", ["prepare", "export"])
def test_a_really_full_disk(name, desk, commands, small_disk):
    """For training: tests/train/test_loop.py."""
    disk, resize = small_disk
    resize(24)
    words = STAGES[name].begin(desk, disk)
    end = commands.run(words)
    assert end.code == 2, end.output
    assert "No space left on device; free space or choose another folder" in end.output
    assert list(disk.iterdir()) == []
    resize(4096)
    assert commands.run(words).code == 0
    assert half_written(disk) == []


@pytest.fixture
def read_only(small_disk):
    """A function that makes the small disk read-only from then on; it gives its folder."""
    disk, resize = small_disk
    resize(16_384)

    def lock():
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        return disk

    return disk, lock


@pytest.mark.parametrize("name", ["prepare", "train", "study", "export"])
def test_a_read_only_folder_is_named(name, desk, read_only):
    disk = read_only[1]()
    message = refused(*STAGES[name].begin(desk, disk))
    assert "Read-only file system" in message
    assert str(disk) in message
    assert "choose another folder" in message


def test_data_and_runs_may_lie_on_a_read_only_disk(desk, read_only, commands, tmp_path):
    disk, lock = read_only
    prepared, run = Desk(disk), disk / "run"
    prepare = ["data", "prepare", desk.texts, "--tokenizer", "bpe:259", "--out", prepared.data, "--quiet"]
    spec = prepared.write_spec("spec")
    train = ["train", spec, "--schedule.num-steps", "6", "--quiet", "--out"]
    for words in (prepare, [*train, run]):
        assert commands.run(words).code == 0
    lock()
    for words in (
        ["data", "inspect", prepared.data],
        prepare,  # it is there already
        [*train, run],  # it is finished
        [*train, tmp_path / "run"],
        ["sample", run, "--length", "8", "--steps", "2", "--quiet"],
        ["export", run, "--out", tmp_path / "export"],
    ):
        end = commands.run(words)
        assert end.code == 0, end.output
