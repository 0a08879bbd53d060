"""A run from start to end: its folder, what it refuses, and that stopping it changes nothing."""

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from noiselaw.files import FolderInUseError, only_writer, read_json
from noiselaw.metrics import read_rows
from noiselaw.optim.laprop import LaProp
from noiselaw.train import checkpoint as checkpoint_module
from noiselaw.train.checkpoint import CheckpointError, list_checkpoints, read_checkpoint, read_tensors
from noiselaw.train.loop import NonFiniteLossError, RunFolderError, train, validation_steps
from noiselaw.train.validation import BoundEstimate

OBJECTIVES = {
    "masked": {"kind": "diffusion", "noise": "masked"},
    "balanced": {"kind": "diffusion", "noise": "balanced"},
    "uniform": {"kind": "diffusion", "noise": "uniform"},
    "unigram": {"kind": "diffusion", "noise": {"shift": 0.0, "reference": "unigram"}},
    "elbo": {"kind": "diffusion", "noise": "balanced", "weighting": "elbo", "max_empty_fraction": 0.2},
    "autoregressive": {"kind": "autoregressive"},
}


def curve(folder):
    """Every row that may not depend on the clock."""
    return [row for row in read_rows(folder / "metrics.jsonl") if row["kind"] != "speed"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_learns(run_spec, tmp_path, name):
    spec = run_spec(objective=OBJECTIVES[name], **{"schedule.num_steps": 120, "batch_sequences": 16})
    result = train(spec, tmp_path / "run", [])
    first = read_rows(tmp_path / "run" / "metrics.jsonl", "validation")[0]
    assert result["validation"]["step"] == 120
    assert result["validation"]["loss"] < 0.97 * first["loss"]
    assert result["validation"]["standard_error"] > 0


def test_finished_run_returns_its_result_at_once(run_spec, tmp_path):
    result = train(run_spec(), tmp_path / "run", [])
    before = (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns
    assert train(run_spec(), tmp_path / "run", []) == result
    assert (tmp_path / "run" / "metrics.jsonl").stat().st_mtime_ns == before


def test_accumulation_gives_the_same_curve(run_spec, tmp_path):
    train(run_spec(), tmp_path / "whole", [])
    train(run_spec(**{"runtime.micro_batch_sequences": 3, "runtime.head_chunk_tokens": 7}), tmp_path / "parts", [])
    for one, other in zip(curve(tmp_path / "whole"), curve(tmp_path / "parts"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=2e-4)


def test_bfloat16_follows_float32(run_spec, tmp_path):
    exact = train(run_spec(), tmp_path / "exact", [])["validation"]["loss"]
    rough = train(run_spec(precision="bfloat16"), tmp_path / "rough", [])["validation"]["loss"]
    assert rough == pytest.approx(exact, rel=0.02)
    assert rough != exact


@pytest.mark.parametrize("name", ["masked", "autoregressive"])
def test_kill_at_any_moment_then_continue_is_bit_identical(run_spec, tmp_path, name):
    spec = run_spec(objective=OBJECTIVES[name], **{"schedule.num_steps": 400, "runtime.checkpoint_every_seconds": 0.05})
    train(spec, tmp_path / "whole", [])
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "noiselaw.cli", "train", str(folder / "spec.json"), "--quiet"]
    kills = 0
    for wanted in (20, 150):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            rows = read_rows(folder / "metrics.jsonl", "train")
            if rows and rows[-1]["step"] >= wanted:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        process.communicate()
    assert kills == 2
    assert not (folder / "result.json").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert curve(folder) == curve(tmp_path / "whole")
    whole, killed = (
        read_tensors(read_checkpoint(list_checkpoints(at / "checkpoints")[-1])) for at in (tmp_path / "whole", folder)
    )
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[key], killed[key]) for key in whole)


def test_a_kill_while_the_folder_is_made_ready_is_no_obstacle(run_spec, tmp_path, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("noiselaw.train.saving.remove_leftovers", killed)  # the folder of checkpoints is just made
        with pytest.raises(KeyboardInterrupt):
            train(run_spec(), tmp_path / "run", [])
    assert (tmp_path / "run" / "checkpoints").is_dir()
    train(run_spec(), tmp_path / "run", [])
    train(run_spec(), tmp_path / "whole", [])
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")


def test_interrupt_saves_and_continues(run_spec, tmp_path):
    spec = run_spec(**{"schedule.num_steps": 60})
    train(spec, tmp_path / "whole", [])

    class Stop:
        """Sends Ctrl-C once some steps are done."""

        def started(self, spec, facts, step): ...
        def message(self, text): ...
        def close(self): ...
        def rows(self, rows):
            if rows[-1]["step"] >= 20:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="same command continues"):
        train(spec, tmp_path / "stopped", [Stop()])
    assert 20 <= read_checkpoint(list_checkpoints(tmp_path / "stopped" / "checkpoints")[-1]).step < 60
    train(spec, tmp_path / "stopped", [])
    assert curve(tmp_path / "stopped") == curve(tmp_path / "whole")


def test_half_written_metrics_line_is_dropped(run_spec, tmp_path):
    spec = run_spec()
    train(spec, tmp_path / "run", [])
    expected = curve(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    for path in list_checkpoints(tmp_path / "run" / "checkpoints"):
        path.unlink()
    with (tmp_path / "run" / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"kind": "train", "st')
    train(spec, tmp_path / "run", [])
    assert curve(tmp_path / "run") == expected


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(run_spec, tmp_path):
    spec = run_spec()
    train(spec, tmp_path / "run", [])
    expected = curve(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    content = bytearray(newest.read_bytes())
    content[-5] ^= 1
    newest.write_bytes(content)
    messages = []

    class Listener:
        def started(self, spec, facts, step):
            messages.append(step)

        def rows(self, rows): ...
        def message(self, text):
            messages.append(text)

        def close(self): ...

    train(spec, tmp_path / "run", [Listener()])
    assert 0 < messages[0] < 30
    assert "damaged checkpoint (checksum differs)" in messages[1]
    assert curve(tmp_path / "run") == expected


def test_checkpoint_of_another_spec_is_refused(run_spec, tmp_path):
    train(run_spec(), tmp_path / "one", [])
    (tmp_path / "two").mkdir()
    shutil.copytree(tmp_path / "one" / "checkpoints", tmp_path / "two" / ".kept")
    spec = run_spec(seed=1)
    train(spec, tmp_path / "three", [])
    (tmp_path / "three" / "result.json").unlink()
    shutil.rmtree(tmp_path / "three" / "checkpoints")
    shutil.move(tmp_path / "two" / ".kept", tmp_path / "three" / "checkpoints")
    with pytest.raises(CheckpointError, match=r"checkpoint of another spec.*choose another output folder"):
        train(spec, tmp_path / "three", [])


def test_folder_of_another_run_is_refused(run_spec, tmp_path):
    train(run_spec(), tmp_path / "run", [])
    with pytest.raises(RunFolderError, match=r"holds another run.*choose another --out"):
        train(run_spec(seed=1), tmp_path / "run", [])


def test_a_second_trainer_in_one_folder_is_refused(run_spec, tmp_path, monkeypatch):
    monkeypatch.setattr("noiselaw.train.loop.STOPPING_SECONDS", 0.0)
    (tmp_path / "run").mkdir()
    with only_writer(tmp_path / "run"), pytest.raises(FolderInUseError, match="another process is working"):
        train(run_spec(), tmp_path / "run", [])
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    train(run_spec(), tmp_path / "run", [])


def test_folder_with_other_files_is_refused_and_untouched(run_spec, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(RunFolderError, match="is not empty and holds no run"):
        train(run_spec(), tmp_path, [])
    assert [item.name for item in tmp_path.iterdir()] == ["thesis.tex"]


def test_non_finite_loss_stops_with_a_report_and_keeps_the_last_good_checkpoint(run_spec, tmp_path, monkeypatch):
    from noiselaw.train import step as step_module

    real = step_module.accumulate_gradients
    calls = []

    def explode(model, *args, **kwargs):
        calls.append(1)
        if len(calls) == 15:
            with torch.no_grad():
                model.lm_head.weight.fill_(float("nan"))
        return real(model, *args, **kwargs)

    monkeypatch.setattr(step_module, "accumulate_gradients", explode)
    with pytest.raises(
        NonFiniteLossError, match=r"loss nan .* at step 15; .*Lower optimizer.learning_rate \(now 0.5\)"
    ):
        train(run_spec(**{"runtime.checkpoint_every_seconds": 0.0}), tmp_path / "run", [])
    report = read_json(tmp_path / "run" / "failure.json")
    assert report["step"] == 15
    for path in list_checkpoints(tmp_path / "run" / "checkpoints"):
        saved = read_checkpoint(path)
        assert saved.step < 15
        assert all(tensor.isfinite().all() for tensor in read_tensors(saved).values())


def test_weights_that_overflow_in_the_update_are_never_saved(run_spec, tmp_path, monkeypatch):
    """The loss and the gradient before the update are finite: only the weights tell."""
    real, calls = LaProp.step, []

    def leap(optimizer):
        real(optimizer)
        calls.append(1)
        if len(calls) == 15:
            optimizer.param_groups[0]["params"][0].data[0, 0] = math.inf

    monkeypatch.setattr(LaProp, "step", leap)
    with pytest.raises(NonFiniteLossError, match=r"weights that are not finite at step 15; the checkpoints before"):
        train(run_spec(), tmp_path / "run", [])
    assert read_json(tmp_path / "run" / "failure.json") == {"step": 15, "fault": "weights that are not finite"}
    assert [read_checkpoint(path).step for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == [13, 14]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_held_out_loss_that_is_not_finite_stops_with_a_report(run_spec, tmp_path, monkeypatch, loss):
    from noiselaw.train import loop

    estimate = BoundEstimate(loss, 0.1, loss, 0.0, 0.0)
    monkeypatch.setattr(loop.Validator, "estimate", lambda *_: estimate)
    with pytest.raises(NonFiniteLossError, match=rf"held-out loss {loss} at step \d+; .*Lower optimizer.learning_rate"):
        train(run_spec(), tmp_path / "run", [])


def test_full_disk_while_saving_keeps_the_last_checkpoint(run_spec, tmp_path, monkeypatch):
    real, saves = checkpoint_module.write_atomically, []

    def fill(path, write):
        saves.append(path)
        if len(saves) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, write)

    monkeypatch.setattr(checkpoint_module, "write_atomically", fill)
    with pytest.raises(OSError, match="No space left"):
        train(run_spec(), tmp_path / "run", [])
    kept = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert read_checkpoint(kept[-1]).step > 0
    monkeypatch.undo()
    train(run_spec(), tmp_path / "whole", [])
    train(run_spec(), tmp_path / "run", [])
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")


def test_really_full_disk_is_named_nothing_is_lost_and_the_same_command_continues(run_spec, tmp_path, small_disk):
    disk, resize = small_disk
    spec = run_spec()
    train(spec, tmp_path / "whole", [])
    used = sum(path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file())
    size = used // 1024 * 3 // 4  # one checkpoint fits, two do not
    resize(size)
    with pytest.raises(OSError, match=r"cannot write .*disk/run.*: No space left on device; free space or choose"):
        train(spec, disk / "run", [])
    (kept,) = list_checkpoints(disk / "run" / "checkpoints")
    assert 0 < read_checkpoint(kept).step < 30
    resize(4 * size)
    train(spec, disk / "run", [])
    assert curve(disk / "run") == curve(tmp_path / "whole")
    assert not list((disk / "run").rglob("*.tmp"))


def test_clipping_really_clips(run_spec, tmp_path):
    free = run_spec(**{"optimizer.clip_norm": None, "optimizer.kind": "adamw"})
    tight = run_spec(**{"optimizer.clip_norm": 1e-12, "optimizer.kind": "adamw", "optimizer.epsilon": 1e-3})
    loose = run_spec(**{"optimizer.clip_norm": None, "optimizer.kind": "adamw", "optimizer.epsilon": 1e-3})
    losses = [train(spec, tmp_path / str(i), [])["validation"]["loss"] for i, spec in enumerate((free, tight, loose))]
    start = read_rows(tmp_path / "1" / "metrics.jsonl", "validation")[0]["loss"]
    # A gradient clipped far below epsilon no longer moves the model.
    assert losses[1] == pytest.approx(start, rel=1e-3)
    assert losses[2] < 0.98 * start


def test_validation_steps_span_the_decades_and_end_at_the_last(run_spec):
    spec = run_spec(**{"schedule.num_steps": 1000, "validation.num_points": 5, "validation.decades": 2.0})
    assert validation_steps(spec) == [10, 32, 100, 316, 1000]


def test_metrics_are_json_lines_with_flops_and_tokens(run_spec, tmp_path):
    train(run_spec(), tmp_path / "run", [])
    facts = read_json(tmp_path / "run" / "run.json")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 31))
    for row in rows:
        if row["kind"] != "speed":
            assert row["tokens"] == row["step"] * 4 * 16
            assert row["flops"] == row["tokens"] * facts["flops_per_token"]
