"""docs/scale.md: every command for training is read as the program reads it, and stops where its work would start."""

import re
import shlex
from pathlib import Path

import pytest
import torch.distributed.run as torchrun

from noiselaw.cli import dryrun, plan
from noiselaw.cli import train as training
from noiselaw.train.distributed import check_ranks

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"(?:^ {4}.*\n)+", PAGE, re.MULTILINE)
    for line in block.replace("\\\n", " ").splitlines()
    if line.split()[0] in ("noiselaw", "torchrun")
]


class ReachedError(Exception):
    """What stands in for the work."""


def stop(*arguments, **_options):
    raise ReachedError(arguments)


def of_verb(verb):
    return [words for words in COMMANDS if words[:2] == ["noiselaw", verb]]


def test_the_page_has_what_a_newcomer_looks_for():
    assert sum(words[0] == "torchrun" for words in COMMANDS) == 2
    assert len(of_verb("train")) >= 3
    assert len(of_verb("study")) == 2


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] == "torchrun"], ids=len)
def test_torchrun(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    parsed = torchrun.parse_args(words[1:])
    assert (parsed.module, parsed.training_script) == (True, "noiselaw.cli")
    monkeypatch.setattr(training, "starting_point", lambda _: None)
    monkeypatch.setattr(training, "train_run", stop)
    with pytest.raises(ReachedError) as reached:
        training.train([*parsed.training_script_args[1:], "--quiet"])
    spec = reached.value.args[0][0]
    check_ranks(spec, int(parsed.nnodes.split(":")[-1]) * int(parsed.nproc_per_node))


@pytest.mark.parametrize("words", of_verb("train"), ids=len)
def test_dry_runs(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(dryrun, "forecast", stop)
    with pytest.raises(ReachedError) as reached:
        training.train(words[2:])
    spec, vocab_size, cluster, _ = reached.value.args[0]
    check_ranks(spec, cluster.num_ranks)
    assert vocab_size == 131072


def test_the_dry_run_of_a_plan(monkeypatch):
    monkeypatch.setattr(dryrun, "forecast", stop)
    with pytest.raises(ReachedError) as reached:
        plan.plan(noise=("uniform",), flops=1e22, gpu="h100", count=256, dry_run=True)
    spec, _, cluster, limits = reached.value.args[0]
    assert (spec.model.num_layers, spec.model.width, cluster.num_ranks) == (34, 4608, 256)
    assert limits == (80e9, 141e9)
    with pytest.raises(ValueError, match="one noise"):
        plan.plan(flops=1e22, gpu="h100", dry_run=True)
    with pytest.raises(ValueError, match="--gpu"):
        plan.plan(noise=("uniform",), flops=1e22, dry_run=True)
