"""Checkpoints on one process: saved in the background, complete or absent, and nothing of a stranger's is run."""

import errno
import json
import pickle
import random
import threading
from pathlib import Path

import pytest
import torch
from rank_jobs import FINGERPRINT, build, digests, stored, uninterrupted, update
from safetensors.torch import load_file, save_file

from noiselaw.files import write_json
from noiselaw.train import saving, sharded
from noiselaw.train.checkpoint import (
    CheckpointError,
    Facts,
    checksum_of_facts,
    drop_older,
    list_checkpoints,
    newest_valid,
    read_checkpoint,
    read_tensors,
    training_state,
)
from noiselaw.train.saving import Checkpoints


@pytest.mark.parametrize("keep", [1, 2, 4, 6, 9])
def test_the_newest_stay(tmp_path, keep):
    for step in range(1, 7):
        path = tmp_path / f"step-{step:08d}.safetensors"
        path.write_bytes(b"")
        drop_older(path, keep)
        assert list_checkpoints(tmp_path) == [
            tmp_path / f"step-{kept:08d}.safetensors" for kept in range(max(1, step - keep + 1), step + 1)
        ]


@pytest.fixture
def saved(tmp_path):
    """A folder with the checkpoints of steps 1 to 3."""
    model, optimizer = build("plain", "laprop")
    with Checkpoints(tmp_path / "checkpoints", FINGERPRINT, keep=3) as checkpoints:
        for step in (1, 2, 3):
            update(model, optimizer, step)
            checkpoints.save(model, optimizer, step=step, wait=False)
    return tmp_path / "checkpoints"


def test_a_save_is_of_its_moment_and_the_next_one_waits_for_it(tmp_path, monkeypatch):
    held, begun, log, write = threading.Event(), threading.Event(), [], saving.write_file

    def slow(path, tensors, facts):
        log.append(f"begin {facts.step}")
        begun.set()
        assert held.wait(60)
        write(path, tensors, facts)
        log.append(f"end {facts.step}")

    monkeypatch.setattr(saving, "write_file", slow)
    model, optimizer = build("plain", "adamw")
    with Checkpoints(tmp_path, FINGERPRINT, keep=2) as checkpoints:
        update(model, optimizer, 1)
        checkpoints.save(model, optimizer, step=1, wait=False)
        update(model, optimizer, 2)  # while the first is being written
        assert begun.wait(60)
        assert not checkpoints.failed
        assert log == ["begin 1"]
        threading.Timer(0.05, held.set).start()
        checkpoints.save(model, optimizer, step=2, wait=True)
        assert log == ["begin 1", "end 1", "begin 2", "end 2"]
    expected = uninterrupted("adamw", 2)
    assert [stored(path) for path in list_checkpoints(tmp_path)] == expected[1:]


def test_a_step_is_written_once(saved, monkeypatch):
    """Else the end of a run would replace its only checkpoint by the same again."""
    model, optimizer = build("plain", "laprop")
    write, written = saving.write_file, []
    monkeypatch.setattr(saving, "write_file", lambda path, *rest: (written.append(path.name), write(path, *rest)))
    with Checkpoints(saved, FINGERPRINT, keep=1) as checkpoints:
        step, _ = checkpoints.restore_newest(model, optimizer)
        checkpoints.save(model, optimizer, step=step, wait=True)
        assert written == []
        update(model, optimizer, 4)
        checkpoints.save(model, optimizer, step=4, wait=False)
        checkpoints.save(model, optimizer, step=4, wait=True)
    assert written == ["step-00000004.safetensors"]
    assert [stored(path) for path in list_checkpoints(saved)] == [uninterrupted("laprop", 4)[4]]


def test_a_save_that_fails_in_the_background_is_seen_at_the_next_step(saved, monkeypatch):
    def full(path, tensors, facts):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(saving, "write_file", full)
    before = [stored(path) for path in list_checkpoints(saved)]
    model, optimizer = build("plain", "laprop")
    with Checkpoints(saved, FINGERPRINT, keep=1) as checkpoints:
        checkpoints.save(model, optimizer, step=4, wait=False)
        checkpoints._thread.shutdown()  # it has failed by now
        assert checkpoints.failed
        with pytest.raises(OSError, match="No space left"):
            checkpoints.finish()
        assert not checkpoints.failed  # once is enough
    assert [stored(path) for path in list_checkpoints(saved)] == before


def test_leaving_waits_and_tells(tmp_path, monkeypatch):
    def full(path, tensors, facts):
        raise OSError(errno.ENOSPC, "No space left on device")

    model, optimizer = build("plain", "laprop")
    monkeypatch.setattr(saving, "write_file", full)
    with pytest.raises(OSError, match="No space left"), Checkpoints(tmp_path, FINGERPRINT, keep=1) as checkpoints:
        checkpoints.save(model, optimizer, step=1, wait=False)

    def diverge() -> None:
        with Checkpoints(tmp_path, FINGERPRINT, keep=1) as checkpoints:
            checkpoints.save(model, optimizer, step=1, wait=False)
            raise ArithmeticError("the loss is no number")

    with pytest.raises(ArithmeticError, match="the loss is no number"):
        diverge()


def test_older_ones_go_and_a_damaged_later_one_costs_no_sound_one(saved):
    (saved / "step-00000009.safetensors").write_bytes(b"damaged")
    model, optimizer = build("plain", "laprop")
    with Checkpoints(saved, FINGERPRINT, keep=2) as checkpoints:
        step, faults = checkpoints.restore_newest(model, optimizer)
        assert step == 3
        assert len(faults) == 1
        update(model, optimizer, 4)
        checkpoints.save(model, optimizer, step=4, wait=True)
        assert [read_checkpoint(path).step for path in list_checkpoints(saved)[:-1]] == [3, 4]
        checkpoints.save(model, optimizer, step=9, wait=True)
    assert [read_checkpoint(path).step for path in list_checkpoints(saved)] == [4, 9]


def test_no_flipped_bit_goes_unnoticed(saved):
    """Except in the blanks and the names of the header, where it changes nothing that is read."""
    path = list_checkpoints(saved)[-1]
    content, draw, expected, found = path.read_bytes(), random.Random(0), stored(path), 0
    for _ in range(150):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError:
            found += 1
        else:
            assert (checkpoint.step, checkpoint.facts.fingerprint) == (3, FINGERPRINT)
            assert digests(read_tensors(checkpoint), checkpoint.facts.scalars) == expected
    assert found > 140


def test_a_checkpoint_under_another_step_s_name_is_refused(saved):
    path = list_checkpoints(saved)[-1].rename(saved / "step-00000007.safetensors")
    with pytest.raises(CheckpointError, match=r"step-00000007.*damaged checkpoint \(holds step 3\)"):
        read_checkpoint(path)
    assert newest_valid(saved, FINGERPRINT)[0].step == 2


def test_checkpoints_from_before_the_facts_had_a_checksum_are_read(saved):
    path = list_checkpoints(saved)[-1]
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stream:
        metadata = stream.metadata()
    tensors = load_file(path)
    del metadata["facts_checksum"]
    save_file(tensors, path, metadata)
    assert read_checkpoint(path).step == 3


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def folder_of(path: Path, files: dict[str, bytes], names: dict | None = None) -> Path:
    """A checkpoint folder of those files whose manifest agrees with them, or says `names` of them."""
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    listed = {name: sharded._facts_of_file(path / name) for name in files} if names is None else names
    manifest = Facts(int(path.name[5:]), FINGERPRINT, {}).as_strings() | {"files": listed}
    write_json(path / "manifest.json", manifest | {"checksum": checksum_of_facts(manifest)})
    return path


@pytest.fixture
def bomb(tmp_path):
    """A pickle that leaves a mark when it is read, and whether it has."""
    mark = tmp_path / "exploded"
    content = pickle.dumps(Bomb(mark))
    pickle.loads(content)
    assert mark.exists()  # it works
    mark.unlink()
    return content, mark


def load_all(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    read_tensors(checkpoint)


def test_a_hostile_pickle_is_refused_and_nothing_runs(tmp_path, bomb):
    content, mark = bomb
    folder = tmp_path / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    (folder / ".metadata").write_bytes(content)
    (folder / "__0_0.distcp").write_bytes(content)
    with pytest.raises(CheckpointError) as refused:
        load_all(folder)
    assert str(refused.value) == (
        f"{folder}: damaged checkpoint (no manifest.json; pickled checkpoints of torch are not read); "
        "delete it to use the one before"
    )
    named = folder_of(tmp_path / "checkpoints" / "step-00000002", {"shard-00001.safetensors": content})
    with pytest.raises(CheckpointError, match=r"step-00000002: damaged checkpoint \(.*\); delete it") as refused:
        load_all(named)
    assert "\n" not in str(refused.value)
    manifest = tmp_path / "checkpoints" / "step-00000003"
    manifest.mkdir()
    (manifest / "manifest.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or not JSON"):
        load_all(manifest)
    assert not mark.exists()


def test_a_pickle_beside_a_sound_checkpoint_is_never_opened(tmp_path, bomb):
    content, mark = bomb
    save_file({"model.x": torch.arange(3.0)}, tmp_path / "x")
    folder = folder_of(tmp_path / "step-00000001", {"shard-00001.safetensors": (tmp_path / "x").read_bytes()})
    for name in (".metadata", "__0_0.distcp", "shard-00002.safetensors"):
        (folder / name).write_bytes(content)
    assert read_tensors(read_checkpoint(folder))["model.x"].equal(torch.arange(3.0))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ({"../secret.safetensors": {"bytes": 1, "sha256": ""}}, "only .safetensors files beside it are read"),
        ({"/etc/passwd": {"bytes": 1, "sha256": ""}}, "only .safetensors files beside it are read"),
        ({"a.pt": {"bytes": 1, "sha256": ""}}, "only .safetensors files beside it are read"),
        (["a.safetensors"], "manifest.json"),
        ({"a.safetensors": 3}, "manifest.json"),
        ({"a.safetensors": {"bytes": "many"}}, "manifest.json"),
    ],
)
def test_a_manifest_with_odd_files_is_refused(tmp_path, names, fault):
    folder = folder_of(tmp_path / "step-00000001", {"a.safetensors": b"a"}, names)
    with pytest.raises(CheckpointError, match=fault):
        load_all(folder)


@pytest.mark.parametrize("offsets", [[2**40, 0], [-1, 0], [0], "x", None])
def test_pieces_that_lie_about_their_place_are_refused(tmp_path, offsets):
    sharding = json.dumps({"model.x": {"saved_offsets": offsets}})
    save_file({"model.x": torch.ones(2, 2)}, tmp_path / "x", {"DCP_SHARDING_INFO": sharding})
    folder = folder_of(tmp_path / "step-00000001", {"a.safetensors": (tmp_path / "x").read_bytes()})
    with pytest.raises(CheckpointError, match=r"step-00000001: damaged checkpoint"):
        load_all(folder)


def test_a_run_without_checkpoints_starts_at_the_beginning(tmp_path):
    model, optimizer = build("plain", "laprop")
    before = digests(*training_state(model, optimizer))
    with Checkpoints(tmp_path / "checkpoints", FINGERPRINT, keep=1) as checkpoints:
        assert checkpoints.restore_newest(model, optimizer) == (0, [])
    assert digests(*training_state(model, optimizer)) == before


def test_another_run_s_checkpoints_are_refused(saved):
    model, optimizer = build("plain", "laprop")
    with (
        Checkpoints(saved, "another", keep=1) as checkpoints,
        pytest.raises(CheckpointError, match=f"checkpoint of another spec .fingerprint {FINGERPRINT}, this run's is"),
    ):
        checkpoints.restore_newest(model, optimizer)
