"""`noiselaw train` as typed: what it shows while it trains, where it puts the run, what its options say."""

import io
import re
import sys

import pytest
from rich.console import Console

from noiselaw.cli.main import main
from noiselaw.cli.progress import ProgressBar
from noiselaw.cli.settings import describe_settings
from noiselaw.metrics import read_rows
from noiselaw.specs import RunSpec

SPEC = """
name: small
data: {{path: {data}, sequence_length: 16}}
model: {{num_layers: 1, width: 16, num_heads: 2}}
objective: {{kind: diffusion, noise: masked}}
batch_sequences: 4
schedule: {{num_steps: 20}}
validation: {{num_sequences: 8, num_points: 2}}
runtime: {{num_threads: 1, device: cpu}}
"""


@pytest.fixture
def noiselaw(monkeypatch, tmp_path, tiny_data):
    """A function that runs the program in a folder that holds small.yaml."""
    (tmp_path / "small.yaml").write_text(SPEC.format(data=tiny_data), encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["noiselaw", *arguments])
        main()

    return call


def test_a_file_of_output_has_one_line_per_validation_and_the_result(noiselaw, tmp_path, capsys):
    noiselaw("train", "small.yaml")
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert lines[0].startswith("small: masked, 3,264 non-embedding parameters, 1,280 tokens in 20 steps")
    numbers = r"held-out [\d.]+ nats  [\d.]+ bits/byte  train [\d.]+  [\d,]+ tokens/s  \d+% of matmul peak"
    assert [bool(re.fullmatch(rf"step \d+: {numbers}", line)) for line in lines[1:]] == [True, True]
    assert re.fullmatch(
        r"runs/small: step 20, 1,280 tokens, held-out loss [\d.]+ ± [\d.]+ nats per token, [\d.]+ bits per byte\n",
        captured.out,
    )
    assert (tmp_path / "runs/small/result.json").exists()


def test_a_terminal_shows_a_bar_with_loss_speed_utilisation_and_time_left(noiselaw, monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr("noiselaw.cli.train.ProgressBar", lambda: ProgressBar(console))
    noiselaw("train", "small.yaml")
    last = re.sub(r"\x1b\[[^m]*m", "", screen.getvalue()).split("small ")[-1]
    last = " ".join(last.split())  # lines break where the numbers' widths have it
    assert "…" not in last, "nothing is cut at 80 columns"
    for part in ("20/20", "train ", "held-out ", "bits/byte", "tokens/s", "% of matmul peak", "left 0:00:00"):
        assert part in last


def test_a_run_is_continued_by_its_folder(noiselaw, capsys):
    noiselaw("train", "small.yaml", "--out", "here", "--quiet")
    shown = capsys.readouterr()
    assert shown.err == ""
    noiselaw("train", "here", "--quiet")
    assert capsys.readouterr().out == shown.out


def test_tensorboard_gets_every_number(noiselaw, tmp_path, capsys):
    noiselaw("train", "small.yaml", "--runtime.tensorboard", "true", "--quiet")
    capsys.readouterr()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "runs/small/tensorboard"))
    events.Reload()
    for kind in ("train", "validation"):
        rows = read_rows(tmp_path / "runs/small/metrics.jsonl", kind)
        shown = events.Scalars(f"{kind}/loss")
        assert [(point.step, point.value) for point in shown] == [
            (row["step"], pytest.approx(row["loss"], rel=1e-6)) for row in rows
        ]
    assert "train/gradient_norm" in events.Tags()["scalars"]
    assert "spec/text_summary" in events.Tags()["tensors"]


def test_without_tensorboard_the_remedy_is_named(noiselaw, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SystemExit):
        noiselaw("train", "small.yaml", "--runtime.tensorboard", "true")
    assert "pip install 'noiselaw[tensorboard]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_every_setting_is_listed(noiselaw, capsys):
    noiselaw("train", "--settings")
    shown = capsys.readouterr().out.strip()
    assert shown == describe_settings(RunSpec)
    for line in (
        r"model\.width +required",
        r"objective\.noise\.scale +1\.0 +a: the process",
        r"optimizer\.kind +laprop +laprop or adamw",
        r"runtime\.num_threads +null +CPU threads",
    ):
        assert re.search(rf"^{line}", shown, re.MULTILINE), line
