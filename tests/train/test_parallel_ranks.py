"""One run on several real processes (gloo): the same batches, the same curve as one process, one decision for all."""

import pytest
import torch
from parallel_jobs import curves, parts_seen, stopped_by_nan, stopped_by_signal
from rank_pool import RankPool

from noiselaw.train.checkpoint import list_checkpoints, read_checkpoint
from noiselaw.train.distributed import RanksError, check_ranks

OBJECTIVES = {
    "masked": {"kind": "diffusion", "noise": "masked"},
    "balanced": {"kind": "diffusion", "noise": "balanced"},
    "uniform": {"kind": "diffusion", "noise": "uniform"},
    "autoregressive": {"kind": "autoregressive"},
}
RELATIVE_ERROR = 1e-5
"""Of losses and norms over 50 steps. Sums in another order differ by 1e-7, and one process that cuts its batch stays
within 8e-7 of one that does not (measured at this learning rate; at 0.3 training itself turns that into 4e-3)."""


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    pool = RankPool(4, tmp_path_factory.mktemp("stores"))
    yield pool
    pool.close()


@pytest.fixture
def values(run_spec):
    """A function: a small run as plain values, with the given settings changed.

    Some vectors are shorter than there are ranks, and neither validation nor vocabulary is a multiple of their number.
    """

    def make(**changes):
        fixed = {"batch_sequences": 8, "validation.num_sequences": 9, "validation.num_points": 1}
        once = {"runtime.checkpoint_every_seconds": 1000, "optimizer.learning_rate": 0.05}
        return run_spec(**(fixed | once | changes)).model_dump(mode="json")

    return make


def difference(found, expected):
    """The largest relative difference of any number in two curves whose rows say the same things."""
    largest = 0.0
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            if isinstance(value, float):
                largest = max(largest, abs(one[key] - value) / max(abs(value), 1e-9))
            else:
                assert one[key] == value
    return largest


def test_any_number_of_ranks_and_accumulation_give_the_same_curves(pool, values, tmp_path):
    specs = [values(objective=objective, **{"schedule.num_steps": 50}) for objective in OBJECTIVES.values()]
    parts = [spec | {"runtime": spec["runtime"] | {"micro_batch_sequences": 3}} for spec in specs]
    (expected,) = pool.run(0, curves, specs, tmp_path / "one")
    (accumulated,) = pool.run(0, curves, parts, tmp_path / "parts")
    two = pool.run(2, curves, specs, tmp_path / "two")[0]
    four = pool.run(4, curves, specs, tmp_path / "four")[0]
    for found in (accumulated, two, four):
        for curve, truth in zip(found, expected, strict=True):
            assert [row["kind"] for row in curve].count("train") == 50
            assert difference(curve, truth) < RELATIVE_ERROR


LAYOUTS = {
    "replicas": (4, {"runtime.parallel.replicas": 2, "runtime.micro_batch_sequences": 1}),
    "tensor": (2, {"runtime.parallel.tensor": 2}),
    "tensor and shards": (4, {"runtime.parallel.tensor": 2, "runtime.micro_batch_sequences": 3}),
    "selective": (2, {"runtime.parallel.recompute": "selective"}),
    "full": (2, {"runtime.parallel.recompute": "full", "runtime.parallel.tensor": 2}),
}


def test_every_layout_gives_the_same_curve(pool, values, tmp_path):
    two_blocks = {"model.num_layers": 2, "schedule.num_steps": 15}
    (expected,) = pool.run(0, curves, [values(**two_blocks)], tmp_path / "one")
    for name, (size, changes) in LAYOUTS.items():
        (found,) = pool.run(size, curves, [values(**two_blocks, **changes)], tmp_path / name)[0]
        assert difference(found, expected[0]) < RELATIVE_ERROR, name


def test_bfloat16_on_two_ranks_follows_one(pool, values, tmp_path):
    low = {"precision": "bfloat16"}
    exact, one = pool.run(0, curves, [values(), values(**low)], tmp_path / "one")[0]
    two = pool.run(2, curves, [values(**low)], tmp_path / "two")[0][0]
    tensor = pool.run(2, curves, [values(**low, **{"runtime.parallel.tensor": 2})], tmp_path / "tensor")[0][0]
    rounding = difference(one, exact)
    assert rounding < 0.05
    for found in (two, tensor):
        assert 0 < difference(found, one) < rounding


def test_the_global_batch_is_the_same_on_any_number_of_ranks(pool, values):
    spec = values(**{"objective.max_empty_fraction": 0.1, "objective.prompt_probability": 0.5})
    steps = 3
    (expected,) = pool.run(0, parts_seen, spec, steps)
    two_micro = spec | {"runtime": spec["runtime"] | {"micro_batch_sequences": 2}}
    for size, values_used, parts in ((2, spec, 1), (4, spec, 1), (2, two_micro, 2)):
        seen = pool.run(size, parts_seen, values_used, steps)
        for step, batch in enumerate(expected):
            own = [part for rank in seen for part in rank[step * parts : (step + 1) * parts]]
            for whole, *pieces in zip(batch, *own, strict=True):
                assert torch.equal(whole, torch.cat(pieces))


def test_a_loss_that_is_not_a_number_on_one_rank_stops_all(pool, values, tmp_path):
    faults = pool.run(2, stopped_by_nan, values(), tmp_path / "run", 1, 7)
    for fault in faults:
        assert "loss nan with gradient norm" in fault
        assert "at step 7" in fault
    assert (tmp_path / "run" / "failure.json").exists()


def test_a_signal_to_one_rank_makes_all_save_and_stop(pool, values, tmp_path):
    (expected,) = pool.run(2, curves, [values()], tmp_path / "whole")[0]
    messages = pool.run(2, stopped_by_signal, values(), tmp_path / "stopped" / "0", 1, 7)
    assert all("stopped after step 7; the same command continues" in message for message in messages)
    assert read_checkpoint(list_checkpoints(tmp_path / "stopped" / "0" / "checkpoints")[-1]).step == 7
    (found,) = pool.run(2, curves, [values()], tmp_path / "stopped")[0]
    assert found == expected


@pytest.mark.parametrize(
    ("changes", "num_ranks", "message"),
    [
        ({"batch_sequences": 6}, 4, "batch_sequences 6 is not divisible by 4"),
        ({"batch_sequences": 3, "runtime.parallel.tensor": 2}, 4, "batch_sequences 3 is not divisible by 2"),
        ({"runtime.parallel.tensor": 4}, 4, "tensor 4 does not divide model.num_heads 2"),
        ({"runtime.parallel.tensor": 2}, 1, "tensor 2 x replicas 1 does not divide the number of processes, 1"),
        ({"runtime.parallel.replicas": 4}, 6, "tensor 1 x replicas 4 does not divide the number of processes, 6"),
    ],
)
def test_ranks_that_cannot_share_a_run_are_refused(run_spec, changes, num_ranks, message):
    with pytest.raises(RanksError, match=message):
        check_ranks(run_spec(**changes), num_ranks)
