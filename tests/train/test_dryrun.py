"""Dry runs against what really happens: real steps' memory, closed forms of communication, FLOPs and shards."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from noiselaw.accounting import head_flops_per_token, parameter_counts
from noiselaw.cli.train import train
from noiselaw.laws.published import LARGE_RUNS
from noiselaw.specs import ParallelSpec, RunSpec, parse_spec, read_mapping
from noiselaw.train.distributed import check_ranks
from noiselaw.train.dryrun import PlannedStep, device_sequences, step_costs, traced_costs
from noiselaw.train.layouts import layout_memory, layouts, with_parallel

ROOT = Path(__file__).parents[2]
VOCAB_SIZE = 512


def make_spec(num_layers=2, **changes):
    values = {
        "data": {"path": "nowhere", "sequence_length": 32},
        "model": {"num_layers": num_layers, "width": 64, "num_heads": 4},
        "objective": {"kind": "diffusion", "noise": "balanced"},
        "batch_sequences": 32,
        "schedule": {"num_steps": 100},
    }
    return RunSpec.model_validate(values | changes)


def cost_of(spec, ranks, rows):
    (cost,) = traced_costs(PlannedStep(spec, VOCAB_SIZE, ranks, "cpu"), [rows])
    return cost


def test_the_forecast_is_what_real_steps_take(tmp_path):
    """In float32 with recomputation, in bfloat16, on two ranks: benchmarks/dryrun.py holds each to its bound."""
    claims = tmp_path / "claims.json"
    words = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks/dryrun.py"), "--quick", "--claims", str(claims)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(claims.read_text(encoding="utf-8"))
    assert len(found) == 3
    assert all(claim["value"] <= claim["target"] <= 0.05 for claim in found), done.stdout


def test_blocks_that_are_not_traced_are_added_as_tracing_would_count_them():
    spec = make_spec(num_layers=6, runtime={"parallel": {"replicas": 2}})
    (added,), traced = step_costs(PlannedStep(spec, VOCAB_SIZE, 4, "cpu"), [2]), cost_of(spec, 4, 2)
    for phase, kinds in traced.memory.items():
        assert added.memory[phase] == pytest.approx(kinds, rel=1e-6), phase
    assert added.flops == pytest.approx(traced.flops, rel=1e-12)
    assert added.traffic == pytest.approx(traced.traffic, rel=1e-12)


def test_shards_and_traffic_are_those_of_fsdp():
    """Each pass gathers blocks twice, embedding, last norm and head once, and reduces every gradient once."""
    spec, ranks, passes = make_spec(), 4, 4
    cost = cost_of(spec, ranks, 2)
    counts = parameter_counts(spec.model.shape(VOCAB_SIZE))
    for kind, copies in {"parameters": 1, "gradients": 1, "optimizer": 2}.items():
        assert cost.memory["forward"][kind] == pytest.approx(copies * 4 * counts.total / ranks, rel=1e-6), kind
    moved = dict.fromkeys(("all_gather", "reduce_scatter", "all_reduce"), 0.0)
    for link, num_bytes in cost.traffic.items():
        assert len(link.ranks) == ranks
        moved[link.collective] += num_bytes
    width = spec.model.width
    blocks = counts.non_embedding - width
    assert moved["reduce_scatter"] == passes * 4 * counts.total
    gathered = passes * 4 * (2 * blocks + counts.embedding + counts.head + width)
    assert gathered <= moved["all_gather"] <= gathered + passes * 4 * width  # the last norm may be gathered again
    assert moved["all_reduce"] < 100  # the loss and the norm of the gradient


def test_replicas_gather_within_and_sum_gradients_across_once_a_step():
    cost = cost_of(make_spec(runtime={"parallel": {"replicas": 2}}), 4, 2)
    total = parameter_counts(make_spec().model.shape(VOCAB_SIZE)).total
    assert {link.ranks for link in cost.traffic if link.collective != "all_reduce"} == {(0, 1)}
    across = [size for link, size in cost.traffic.items() if link.collective == "all_reduce" and link.ranks == (0, 2)]
    assert across == [pytest.approx(4 * total / 2, rel=1e-3)]


@pytest.mark.parametrize("recompute", ["none", "full"])
def test_flops_are_the_closed_forms(recompute):
    spec = make_spec(runtime={"parallel": {"recompute": recompute}})
    cost, shape = cost_of(spec, 4, 2), spec.model.shape(VOCAB_SIZE)
    # The sink is a key more than the convention counts; attention's backward pass forms the scores again.
    attention = 12 * shape.num_layers * shape.width * 33
    matrices = 72 * shape.num_layers * shape.width**2
    expected = matrices + attention * 14 / 12 + head_flops_per_token(shape)
    if recompute == "full":
        # The backward pass needs nothing of a block's last product but what goes into it.
        expected += (matrices + attention) / 3 - 8 * shape.num_layers * shape.width**2
    assert cost.flops == pytest.approx(expected * spec.tokens_per_step / 4, rel=1e-6)


def test_recomputation_saves_activations_and_nothing_else():
    peaks = {
        kind: cost_of(with_parallel(make_spec(num_layers=4), ParallelSpec(recompute=kind)), 4, 8).memory["forward"]
        for kind in ("none", "selective", "full")
    }
    activations = [peaks[kind]["activations"] for kind in ("none", "selective", "full")]
    assert activations == sorted(activations, reverse=True)
    assert activations[2] < activations[0] / 3
    assert len({peak["parameters"] for peak in peaks.values()}) == 1


@pytest.mark.parametrize("parallel", [ParallelSpec(recompute="selective"), ParallelSpec(replicas=2)])
def test_the_search_knows_the_memory_of_micro_batches_that_it_never_traced(parallel):
    spec = make_spec(num_layers=3)
    found = layout_memory(spec, VOCAB_SIZE, 4, parallel)
    assert list(found.bytes_by_sequences) == [1, 2, 4, 8]
    (traced,) = step_costs(PlannedStep(with_parallel(spec, parallel), VOCAB_SIZE, 4), [1])
    assert found.bytes_by_sequences[1] == pytest.approx(traced.peak_bytes, rel=0.03)
    assert found.largest(found.bytes_by_sequences[4]) == 4
    assert found.largest(found.bytes_by_sequences[1] - 1) is None


def test_layouts_are_those_that_the_ranks_can_have():
    sharing = [(one.replicas, one.tensor, one.recompute) for one in layouts(make_spec(), 8, 4)]
    assert sharing == [
        *((replicas, 1, recompute) for replicas in (1, 2) for recompute in ("none", "selective", "full")),
        (1, 4, "full"),
    ]
    # Three heads cannot be shared by four.
    odd = make_spec(model={"num_layers": 2, "width": 48, "num_heads": 3})
    assert {one.tensor for one in layouts(odd, 8, 4)} == {1}
    assert device_sequences(with_parallel(make_spec(), ParallelSpec(tensor=4)), 8) == 16


def test_the_command_prints_what_a_recipe_takes(tmp_path, capsys):
    path = tmp_path / "spec.json"
    path.write_text(make_spec().model_dump_json(), encoding="utf-8")
    words = [str(path), "--dry-run", "--ranks", "4", "--vocab-size", str(VOCAB_SIZE), "--no-search"]
    train([*words, "--json", "--runtime.micro-batch-sequences", "2"])
    record = json.loads(capsys.readouterr().out)
    assert record["parameters"]["total"] == parameter_counts(make_spec().model.shape(VOCAB_SIZE)).total
    assert record["memory_bytes"]["total"] == max(record["memory_bytes_by_phase"].values())
    assert record["micro_batch_sequences"] == 2
    assert record["fits"] == {"80": True, "141": True}
    assert record["step_seconds"]["overlapped"] < record["step_seconds"]["not_overlapped"]
    # Four devices are on one node.
    assert record["received_bytes"]["across_nodes"] == 0
    with pytest.raises(ValueError, match="batch_sequences 32 is not divisible by 5"):
        train([str(path), "--dry-run", "--ranks", "5"])


@pytest.mark.parametrize(("name", "ranks"), [("3b", 8), ("10b", 256)])
def test_the_recipes_of_the_large_plans_can_be_spread(name, ranks):
    spec = parse_spec(RunSpec, read_mapping(ROOT / f"recipes/{name}.yaml"), name)
    check_ranks(spec, ranks)
    published = {"3b": LARGE_RUNS[0], "10b": LARGE_RUNS[2]}[name]
    assert spec.objective.name == published.group
    assert (spec.model.num_layers, spec.model.width) == (published.num_layers, published.width)
    assert spec.batch_sequences == published.batch_sequences
    assert device_sequences(spec, ranks) % spec.runtime.micro_batch_sequences == 0
