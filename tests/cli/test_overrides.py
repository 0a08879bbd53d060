import pytest

from noiselaw.cli.overrides import parse_overrides, read_with_overrides
from noiselaw.specs import ModelSpec, SpecError


def test_values_are_yaml():
    words = ["--a.b", "1", "--c=x", "--d", "[1, 2]", "--e", "true", "--f", "-.inf"]
    assert parse_overrides(words) == [("a.b", 1), ("c", "x"), ("d", [1, 2]), ("e", True), ("f", float("-inf"))]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x"], "unexpected 'x'"),
        (["--a"], "--a needs a value"),
        (["--a", "--b", "1"], "--a needs a value, as in --a true"),
        (["--a", "[1"], r"--a: '\[1' is not a value"),
    ],
)
def test_faults_are_named(words, message):
    with pytest.raises(SpecError, match=message):
        parse_overrides(words)


def test_settings_replace_those_of_the_file(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text("num_layers: 2\nwidth: 8\nnum_heads: 1\n", encoding="utf-8")
    assert read_with_overrides(ModelSpec, path, ["--num-layers", "3"], ("out",)).num_layers == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--num-layer", "3"], r"unknown option --num_layer \(did you mean 'num_layers'\?\)"),
        (["--num-layer=3"], "did you mean 'num_layers'"),
        (["--oute", "x"], r"unknown option --oute \(did you mean 'out'\?\)"),
        (["--quite"], "did you mean 'quiet'"),
        (["--widht.x", "1"], "did you mean 'width'"),
        (["--zzz", "1"], "unknown option --zzz$"),
    ],
)
def test_misspelt_settings_and_options_are_named_with_the_nearest(tmp_path, words, message):
    path = tmp_path / "model.yaml"
    path.write_text("num_layers: 2\nwidth: 8\nnum_heads: 1\n", encoding="utf-8")
    with pytest.raises(SpecError, match=message):
        read_with_overrides(ModelSpec, path, words, ("out", "quiet"))
