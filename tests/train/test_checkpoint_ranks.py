"""Checkpoints of real processes: saved on N ranks, resumed on M, complete or absent, one decision for all ranks."""

import os
import shutil

import pytest
from rank_jobs import FINGERPRINT, continue_run, die_while_saving, fill_the_disk, shard_run, stored, uninterrupted
from rank_pool import KILLED, RankPool

from noiselaw.files import read_json
from noiselaw.hub.export import export_run
from noiselaw.hub.loading import load_model
from noiselaw.hub.weights import read_weights
from noiselaw.train.checkpoint import list_checkpoints, newest_valid, read_checkpoint

LIVES = {
    "laprop": [(2, "fsdp"), (1, "fsdp"), (2, "fsdp"), (4, "fsdp"), (0, "plain"), (4, "hsdp")],
    "adamw": [(2, "fsdp"), (4, "tp"), (0, "plain")],
}
"""Ranks and layouts that one run goes through, two steps each; 0 is a process without a process group."""


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    pool = RankPool(4, tmp_path_factory.mktemp("stores"))
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def saved(pool, tmp_path_factory):
    """The checkpoints of a run of 4 steps on two ranks; to be copied."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    pool.run(2, continue_run, folder, "fsdp", "laprop", 4)
    return folder


@pytest.mark.parametrize("kind", LIVES)
def test_a_run_continues_on_any_number_of_ranks_to_the_last_bit(pool, tmp_path, kind):
    expected, folder, done = uninterrupted(kind, 2 * len(LIVES[kind])), tmp_path / "checkpoints", 0
    for size, layout in LIVES[kind]:
        reports = pool.run(size, continue_run, folder, layout, kind, done + 2)
        for report in reports:
            assert (report["start"], report["faults"]) == (done, [])
            assert report["restored"] == expected[done], (size, layout)
            assert report["end"] == expected[done + 2], (size, layout)
        done += 2
        kept = list_checkpoints(folder)
        assert [read_checkpoint(path).step for path in kept] == list(range(max(1, done - 2), done + 1))
        # What was saved is the state of its step, though training went on while it was written.
        assert stored(kept[-2]) == expected[done - 1]
        assert stored(kept[-1]) == expected[done]
        assert all(path.is_dir() == (size > 0) for path in kept[-2:])
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def truncate(folder):
    os.truncate(folder / "shard-00002-model-00001-of-00001.safetensors", 900)


def flip_a_bit(folder):
    path = folder / "shard-00002-model-00001-of-00001.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 16
    path.write_bytes(content)


def lose_a_file(folder):
    (folder / "shard-00001-model-00001-of-00001.safetensors").unlink()


def change_the_manifest(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"step": "4"', '"step": "5"'))


def lose_the_manifest(folder):
    (folder / "manifest.json").unlink()


DAMAGE = {
    truncate: "shard-00002-model-00001-of-00001.safetensors is truncated",
    flip_a_bit: "shard-00002-model-00001-of-00001.safetensors has another checksum",
    lose_a_file: "shard-00001-model-00001-of-00001.safetensors: No such file or directory",
    change_the_manifest: "checksum of manifest.json differs",
    lose_the_manifest: "no manifest.json; pickled checkpoints of torch are not read",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_newest_is_reported_and_the_one_before_used_by_all(pool, saved, tmp_path, damage):
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    damage(folder / "step-00000004")
    for size, layout in ((2, "fsdp"), (0, "plain")):
        for report in pool.run(size, continue_run, folder, layout, "laprop", 0):
            (fault,) = report["faults"]
            assert fault == (
                f"{folder / 'step-00000004'}: damaged checkpoint ({DAMAGE[damage]}); delete it to use the one before"
            )
            assert report["start"] == 3
            assert report["restored"] == stored(folder / "step-00000003")


def test_the_damaged_step_is_written_anew(pool, saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    sound = stored(folder / "step-00000004")
    flip_a_bit(folder / "step-00000004")
    pool.run(2, continue_run, folder, "fsdp", "laprop", 4)
    assert stored(folder / "step-00000004") == sound


def test_what_a_killed_run_left_half_written_is_removed_by_the_next_start(pool, saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    shutil.copytree(folder / "step-00000004", folder / ".step-00000005.tmp")
    (folder / ".step-00000005.tmp" / "manifest.json").unlink()
    (folder / ".step-00000006.safetensors.77.tmp").write_bytes(b"half")
    assert [report["start"] for report in pool.run(2, continue_run, folder, "fsdp", "laprop", 0)] == [4, 4]
    assert sorted(path.name for path in folder.iterdir()) == [f"step-0000000{step}" for step in (2, 3, 4)]


def test_a_rank_killed_while_it_writes_leaves_no_checkpoint_and_no_rank_waiting(pool, saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    mortal = RankPool(2, tmp_path)
    error, lost = mortal.run(2, die_while_saving, folder, 6)
    mortal.close()
    assert lost == KILLED
    assert error != "no error"
    reports = pool.run(2, continue_run, folder, "fsdp", "laprop", 6)
    assert [(report["start"], report["faults"]) for report in reports] == [(5, [])] * 2
    assert reports[0]["end"] == uninterrupted("laprop", 6)[6]


def test_a_disk_full_for_one_rank_stops_all_and_older_checkpoints_stay(pool, saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    faults = pool.run(2, fill_the_disk, folder, 6, 1)
    for fault in faults:
        assert fault == (
            f"[Errno 28] cannot write {folder / '.step-00000006.tmp'}: No space left on device; "
            "free space or choose another folder"
        )
    assert sorted(path.name for path in folder.iterdir()) == [f"step-0000000{step}" for step in (3, 4, 5)]
    assert newest_valid(folder, FINGERPRINT)[0].step == 5


def test_a_really_full_disk(pool, small_disk):
    disk, resize = small_disk
    resize(160)
    folder = disk / "checkpoints"
    faults = pool.run(2, fill_the_disk, folder, 6, None)
    assert all("No space left on device; free space" in fault for fault in faults), faults
    newest, passed_over = newest_valid(folder, FINGERPRINT)
    assert newest.step >= 1
    assert passed_over == []
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []


def test_a_run_of_many_ranks_loads_and_exports_on_one_machine(pool, trained_run, tmp_path):
    run = shutil.copytree(trained_run("balanced"), tmp_path / "run")
    before, card = load_model(run), export_run(run, tmp_path / "before")
    steps = pool.run(2, shard_run, run, read_json(run / "run.json")["fingerprint"])
    assert steps == [before.step, before.step]
    assert [path.is_dir() for path in list_checkpoints(run / "checkpoints")] == [True]
    after = load_model(run)
    assert after.step == before.step
    assert export_run(run, tmp_path / "after").config == card.config
    for name, tensor in read_weights(tmp_path / "before").items():
        assert tensor.equal(read_weights(tmp_path / "after")[name]), name
        assert tensor.equal(after.model.state_dict()[name]), name
