import pytest

from noiselaw.cli.overrides import set_dotted
from noiselaw.data.shards import open_tokens
from noiselaw.specs import parse_spec
from noiselaw.study.design import Site, StudySpec


@pytest.fixture
def site(tiny_data, tmp_path):
    """A function that makes the site of a minute-long study, with the given settings changed."""

    def make(**changes):
        values = {
            "name": "mini",
            "data": {"source": "python", "tokenizer": "bpe:259", "sequence_length": 16},
            "groups": ["masked", "autoregressive"],
            "shapes": [{"num_layers": 1, "width": width, "num_heads": 2} for width in (8, 12, 16, 24)],
            "budgets_flops": [5e7, 1e8, 2e8, 4e8],
            "batch_tokens": {"coefficient": 0.02, "exponent": 0.8},
            "learning_rate": {"coefficient": 0.1, "exponent": 0.3},
            "confirmation": {"groups": ["masked"], "candidates": [{"num_layers": 1, "width": 24, "num_heads": 2}]},
            "run": {"validation": {"num_sequences": 8, "num_points": 8}},
        }
        for key, value in changes.items():
            set_dotted(values, key, value)
        return Site(parse_spec(StudySpec, values, "test"), tmp_path, open_tokens(tiny_data))

    return make
