"""Killed at random moments every stage resumes to the same bytes: the short version of `make torture`."""

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torture
from stages import SECRETS, STAGES, holding_secrets
from torture import AtCall, Tally, draw_moment, measure

from noiselaw.files import write_json

KILLS = {"prepare": 1, "train": 1, "checkpoint": 2, "collect": 1, "export": 1}
"""Studies that train are killed by tests/study/test_study_run.py."""


@pytest.fixture(scope="module")
def study_desk(desk, commands):
    """As the long version's, but the grid of its study is made up."""
    make_up_grid(desk, commands)
    torture.do(commands, ["study", "run", desk.write_recipe(), "--out", desk.study])
    return desk


def make_up_grid(desk, commands):
    """Runs that are done as far as a study can tell, from a surface known beforehand."""
    recipe = desk.write_recipe()
    shutil.copytree(desk.data, desk.study / "data")
    write_json(desk.study / "recipe.json", {})
    end = commands.run(["study", "status", recipe, "--out", desk.study, "--json"])
    assert end.code == 0, end.output
    for state in json.loads(end.output):
        width = int(state["run"].split("-d")[1].split("-")[0])
        folder = desk.study / "runs" / state["run"]
        folder.mkdir(parents=True)
        rows = [made_up_row(state["num_steps"], width, share) for share in (0.06, 0.12, 0.25, 0.5, 0.7, 1.0)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        speed = {"tokens_per_second": 1e4, "model_flops_per_second": 1e9, "share_of_matmul_peak": 0.1, "seconds": 9.0}
        write_json(folder / "result.json", {"validation": rows[-1], "speed": {"kind": "speed", "step": 1, **speed}})


def made_up_row(num_steps, width, share):
    step = max(1, round(share * num_steps))
    loss = 1.0 + 30 / (12 * width**2) ** 0.5 + 300 / (64 * step) ** 0.5
    return {"kind": "validation", "step": step, "tokens": 64 * step, "flops": 1.6e8 * share, "loss": loss,
            "standard_error": 0.01, "bits_per_byte": loss}  # fmt: skip


@pytest.mark.parametrize("name", KILLS)
def test_killed_at_any_moment_a_stage_resumes_to_the_same_bytes(name, request, commands, tmp_path):
    desk = request.getfixturevalue("study_desk" if name == "collect" else "desk")
    said = []
    tally = Tally(name)
    torture.torture(
        STAGES[name], desk, tmp_path, commands, tally, kills=KILLS[name], draw=random.Random(1), say=said.append
    )
    assert tally.faults == []
    assert tally.kills == KILLS[name]
    assert tally.identical == tally.resumed == tally.victims > 0
    assert sum("kill" in line for line in said) == KILLS[name]


def test_the_driver_notices_what_is_lost(desk, commands, tmp_path):
    """A stage whose outcome is another one each time, and a file cut short."""
    stage = STAGES["prepare"]
    tally = Tally("prepare")
    torture.torture(
        replace(stage, outcome=lambda folder: {"folder": str(folder)}),
        desk, tmp_path, commands, tally, kills=1, draw=random.Random(0), say=lambda _: None,
    )  # fmt: skip
    assert tally.identical == 0
    assert tally.faults == ["prepare: differs after kills: folder"]
    (tmp_path / "cut.json").write_text('{"a": ', encoding="utf-8")
    assert torture.half_written(tmp_path) == ["cut.json"]
    assert "| prepare | 1 | 1 | 1 | 0 | 1 |" in torture.table([tally])
    unharmed = tmp_path / "unharmed"
    unharmed.mkdir()
    reference = measure(stage, desk, unharmed, commands)
    moments = [draw_moment("prepare", reference, random.Random(seed)) for seed in range(40)]
    assert {moment.how for moment in moments if isinstance(moment, AtCall)} == {"before", "after", "torn"}


def test_secrets_are_never_written(study_desk, commands, tmp_path):
    """Every command above had them in its environment, as had the trainers that the study started."""
    assert holding_secrets(study_desk.folder) == []
    for words in (
        ["report", study_desk.study, "--out", tmp_path / "page.html"],
        ["sample", study_desk.run, "--length", "8", "--steps", "2", "--trace", tmp_path / "trace.html"],
        ["evaluate", study_desk.run, "--data", study_desk.data],
    ):
        torture.do(commands, words)
    assert holding_secrets(tmp_path) == []
    look = "import os, sys; open(sys.argv[1], 'w').write(os.environ['HF_TOKEN'])"
    subprocess.run([sys.executable, "-c", look, str(tmp_path / "bad")], env=os.environ | SECRETS, check=True)
    assert holding_secrets(tmp_path) == [tmp_path / "bad"]
