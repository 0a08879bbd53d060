import pytest

from noiselaw.specs import SpecError
from noiselaw.study.design import grid_runs


def test_every_group_and_shape_ends_at_the_largest_budget(site):
    runs = grid_runs(site())
    assert len(runs) == 8
    assert len({run.folder for run in runs}) == 8
    for run in runs:
        assert 4e8 <= run.flops < 4e8 + run.flops_per_token * run.spec.tokens_per_step
    tokens = [run.spec.num_tokens for run in runs]
    assert tokens == sorted(tokens, reverse=True)


def test_batch_and_learning_rate_follow_their_laws(site):
    study = site().study
    for run in grid_runs(site()):
        wanted = study.batch_tokens(4e8 / run.flops_per_token)
        assert abs(run.spec.tokens_per_step - wanted) <= 8
        assert run.spec.optimizer.learning_rate == study.learning_rate(run.spec.tokens_per_step)
        assert run.spec.schedule.cooldown_steps == 0


def test_run_names_carry_their_fingerprint(site):
    one, other = (grid_runs(site(seed=seed)) for seed in (0, 1))
    assert {run.folder for run in one}.isdisjoint(run.folder for run in other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ["maskd"]}, "unknown group 'maskd' .did you mean 'masked'"),
        ({"confirmation.groups": ["uniform"]}, "not among the study's groups"),
        ({"shapes": []}, "shapes"),
        ({"budgets": []}, "did you mean 'budgets_flops'"),
        ({"run": {"seed": 1}}, "run sets seed, which the study decides"),
        ({"run": {"modell": {}}}, "did you mean 'model'"),
        ({"budgets_flops": [1e10, 2e10, 3e10, 4e10]}, r"needs [\d,]+ tokens for 4e\+10 FLOPs but the data holds"),
    ],
)
def test_recipes_that_cannot_be_carried_out_are_refused(site, change, message):
    with pytest.raises(SpecError, match=message):
        grid_runs(site(**change))
