from pathlib import Path

import pytest

from noiselaw.accounting import parameter_counts
from noiselaw.specs import SpecError, parse_spec, read_mapping
from noiselaw.study.design import StudySpec, check_recipe, grid_runs, model_spec, repeated_runs


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


def test_runs_of_the_grid_again_on_less_data(site):
    """On every amount that is less than the run sees; the grid does not know of it."""
    place = site(**{"data.unique_tokens": [9000, 30_016]})
    grid = grid_runs(place)
    assert grid == grid_runs(site())
    twins = {(run.group, run.spec.model): run for run in grid}
    repeated = repeated_runs(place, grid)
    amounts = {width: [] for width in (8, 12, 16, 24)}
    for run in repeated:
        twin = twins[run.group, run.spec.model]
        amount = run.spec.data.unique_tokens
        assert run.role == "repeated"
        assert {9000: "-u9k-", 30_016: "-u30016-"}[amount] in run.spec.name
        assert run.spec.model_copy(update={"name": twin.spec.name, "data": twin.spec.data}) == twin.spec
        assert amount < run.spec.num_tokens
        amounts[run.spec.model.width].append(amount)
    assert amounts == {8: [9000, 30_016] * 2, 12: [9000, 30_016] * 2, 16: [9000] * 2, 24: []}
    assert len({run.folder for run in (*grid, *repeated)}) == len(grid) + len(repeated)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"modell": {}}, "did you mean 'model'"),
        ({"seed": 1}, "run sets seed, which the study decides"),
        ({"model": {"widht": 3}}, "recipe: run.model:\n  widht: unknown key .did you mean 'width'"),
        ({"schedule": {"warmup_steps": 10**9}}, "exceed num_steps"),
    ],
)
def test_faults_of_the_runs_show_before_any_data_are_prepared(site, run, message):
    with pytest.raises(SpecError, match=message):
        check_recipe(site(run=run).study)


def test_data_that_no_run_would_repeat_are_refused(site):
    message = (
        r"data.unique_tokens 70,000: nothing would be repeated, no run of the grid sees more than 65,\d\d\d tokens"
    )
    with pytest.raises(SpecError, match=message):
        check_recipe(site(**{"data.unique_tokens": [20_000, 70_000]}).study)


def test_recipes_in_the_repository_are_what_the_study_promises():
    """Four objectives, sizes over 16x or more, four budgets or more over a decade, a plan for 4x the largest."""
    study = parse_spec(StudySpec, read_mapping(Path(__file__).parents[2] / "recipes" / "laptop.yaml"), "laptop")
    check_recipe(study)
    assert {"masked", "balanced", "uniform", "autoregressive"} <= set(study.groups)
    sizes = [parameter_counts(model_spec(study, shape).shape(259)).non_embedding for shape in study.shapes]
    assert len(sizes) >= 4
    assert max(sizes) >= 16 * min(sizes)
    assert max(study.budgets_flops) >= 10 * min(study.budgets_flops)
    assert study.confirmation_flops == 4 * max(study.budgets_flops)
    assert "autoregressive" in study.confirmation.groups
    assert len(study.confirmation.groups) >= 2
    assert "cooldown_steps" not in study.run.get("schedule", {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": ["maskd"]}, "unknown group 'maskd' .did you mean 'masked'"),
        ({"confirmation.groups": ["uniform"]}, "not among the study's groups"),
        ({"shapes": []}, "shapes"),
        ({"budgets": []}, "did you mean 'budgets_flops'"),
        ({"run": {"seed": 1}}, "run sets seed, which the study decides"),
        ({"run": {"modell": {}}}, "did you mean 'model'"),
        ({"run": {"optimizer": {"bta2": 0.9}}}, "optimizer.bta2: unknown key .did you mean 'beta2'"),
        ({"run": {"diffusion": {"promt_probability": 0.1}}}, "did you mean 'prompt_probability'"),
        ({"data.unique_tokens": [0]}, r"data.unique_tokens.0: .*greater than 0"),
        ({"data.unique_tokens": [15]}, "unique_tokens 15 is less than a sequence of 16; raise it"),
        ({"data.unique_tokens": [160, 64, 165]}, "names 160 and 165, which are the same 10 whole sequences"),
        ({"data.tokeniser": "x"}, "data.tokeniser: unknown key .did you mean 'tokenizer'"),
        ({"confirmation.budget_facter": 2}, "did you mean 'budget_factor'"),
        ({"groups": ["masked", "masked"]}, "groups names 'masked' twice"),
        ({"budgets_flops": [1e8, 2e8, 2e8, 4e8]}, "budgets_flops names 200000000.0 twice"),
        ({"budgets_flops": [0, 1e8, 2e8, 4e8]}, "budgets_flops.0: .*greater than 0"),
        ({"budgets_flops": [1e10, 2e10, 3e10, 4e10]}, r"needs [\d,]+ tokens for 4e\+10 FLOPs but the data holds"),
    ],
)
def test_recipes_that_cannot_be_carried_out_are_refused(site, change, message):
    with pytest.raises(SpecError, match=message):
        grid_runs(site(**change))
