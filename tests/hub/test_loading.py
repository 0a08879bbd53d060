"""One function loads every kind of model folder, says what a folder lacks, and needs no data once a run is trained."""

import json
import math
import shutil

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from noiselaw.data.tokenizer import load_tokenizer
from noiselaw.hub import LoadError, load_model
from noiselaw.hub.gidd import GiddFormatError
from noiselaw.sampling import Canvas, autoregressive, blockwise, linear_grid
from noiselaw.train.checkpoint import CheckpointError, list_checkpoints, read_checkpoint, read_tensors


@pytest.fixture
def copied(trained_run, tmp_path):
    """A copy of a run's folder that a test may damage."""

    def copy(name):
        return shutil.copytree(trained_run(name), tmp_path / name)

    return copy


@pytest.fixture
def published(reference_dir, tmp_path):
    return shutil.copytree(reference_dir / "gidd_tiny", tmp_path / "gidd")


@pytest.mark.parametrize(
    ("name", "shift"), [("masked", -math.inf), ("balanced", 0.0), ("uniform", math.inf), ("unigram", 2.0)]
)
def test_a_run_loads_with_its_weights_and_its_noise(trained_run, name, shift):
    folder = trained_run(name)
    loaded = load_model(folder)
    newest = read_tensors(read_checkpoint(list_checkpoints(folder / "checkpoints")[-1]))
    for parameter, value in loaded.model.state_dict().items():
        assert torch.equal(value, newest[f"model.{parameter}"]), parameter
    assert loaded.process.mixing.shift == shift
    assert (loaded.process.min_log_snr, loaded.process.max_log_snr) == (-9.0, 9.0)
    assert loaded.sequence_length == 32
    assert loaded.mask_id == loaded.tokenizer.mask_id == loaded.process.mixing.mask_id
    assert loaded.noise_name == {"unigram": "high-uniform-unigram"}.get(name, name)
    assert loaded.decode(loaded.encode("alpha beta")) == "alpha beta"


def test_an_autoregressive_run_has_no_noise(trained_run):
    loaded = load_model(trained_run("autoregressive"))
    assert loaded.process is None
    assert loaded.noise_name == "autoregressive"
    canvas = Canvas.from_prompts([loaded.encode("al")], 8)
    end = loaded.tokenizer.end_of_text_id
    texts = autoregressive(
        loaded.model, canvas, start_id=end, mask_id=loaded.mask_id, generator=torch.Generator().manual_seed(0)
    )
    assert texts.shape == (1, 8)


@pytest.mark.parametrize("name", ["masked", "unigram"])
def test_a_model_outlives_its_data(trained_run, tiny_data, tmp_path, name):
    """The run keeps the tokenizer, and the token frequencies its noise draws from."""
    data = shutil.copytree(tiny_data, tmp_path / "data")
    folder = trained_run(name, data)
    before = load_model(folder)
    shutil.rmtree(data)
    after = load_model(folder)
    assert after.tokenizer.to_json() == before.tokenizer.to_json()
    if name == "unigram":
        assert torch.equal(after.process.mixing.reference, before.process.mixing.reference)
        assert after.process.mixing.reference.std() > 1e-3


def test_an_older_run_finds_the_tokenizer_with_its_data_or_says_where_it_looked(copied, tiny_data):
    folder = copied("balanced")
    (folder / "tokenizer.json").unlink()
    assert load_model(folder).tokenizer.vocab_size == 259
    spec = json.loads((folder / "spec.json").read_text())
    spec["data"]["path"] = str(folder / "gone")
    (folder / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(LoadError, match=r"its tokenizer is neither at .*tokenizer\.json nor with the data at .*gone"):
        load_model(folder)
    assert load_model(folder, tokenizer=tiny_data / "tokenizer.json").tokenizer.vocab_size == 259


def test_missing_frequencies_are_named(copied, tmp_path):
    folder = copied("unigram")
    (folder / "token_frequencies.npy").unlink()
    assert load_model(folder).process.mixing.reference is not None
    spec = json.loads((folder / "spec.json").read_text())
    spec["data"]["path"] = str(tmp_path / "gone")
    (folder / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(LoadError, match="needs the token frequencies of the training data"):
        load_model(folder)
    (folder / "token_frequencies.npy").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"token_frequencies\.npy: damaged"):
        load_model(folder)


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(copied):
    folder = copied("masked")
    newest = list_checkpoints(folder / "checkpoints")[-1]
    shutil.copy(newest, newest.with_name("step-00000099.safetensors"))
    newest.with_name("step-00000099.safetensors").write_bytes(newest.read_bytes()[:-50])
    assert "step-00000099" in load_model(folder).warnings[0]
    newest.unlink()
    with pytest.raises(CheckpointError, match=r"has no checkpoint to load; train it further\n.*damaged checkpoint"):
        load_model(folder)


def test_folders_that_hold_no_model_are_named(tmp_path, tiny_data, copied):
    with pytest.raises(LoadError, match="no such folder; give a run folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(LoadError, match="is prepared data; give the run folder"):
        load_model(tiny_data)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "recipe.json").write_text("{}")
    with pytest.raises(LoadError, match="is a study; give one of its runs"):
        load_model(tmp_path / "study")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    with pytest.raises(LoadError, match=r"holds no model \(found a\.txt\)"):
        load_model(tmp_path / "notes")
    folder = copied("masked")
    (folder / "run.json").write_text("[]")
    with pytest.raises(LoadError, match="lacks fingerprint or vocab_size"):
        load_model(folder)
    (folder / "run.json").unlink()
    with pytest.raises(LoadError, match="the run has not started"):
        load_model(folder)


def words_tokenizer(path, words):
    vocabulary = {word: index for index, word in enumerate(["<unk>", "<|endoftext|>", "<|mask|>", "<|empty|>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))
    return path


def test_text_without_a_token_is_named(published, tmp_path):
    path = words_tokenizer(tmp_path / "tokenizer.json", [f"w{index}" for index in range(20)])
    config = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps(config | {"mask_token_id": 2}))
    loaded = load_model(published, tokenizer=path)
    assert loaded.encode("w1 w2") == [5, 6]
    with pytest.raises(ValueError, match="--prompt 'w1 never' holds characters that the tokenizer"):
        loaded.encode("w1 never", "--prompt")


def test_a_tokenizer_of_another_size_is_refused(copied, tmp_path):
    path = words_tokenizer(tmp_path / "tokenizer.json", [f"w{index}" for index in range(20)])
    with pytest.raises(LoadError, match="was trained with 259 tokens but its tokenizer has 24"):
        load_model(copied("masked"), tokenizer=path)


@pytest.mark.parametrize(("noise_type", "shift"), [(0.0, 0.0), (-1000.0, -math.inf), (1000.0, math.inf), (-2.0, -2.0)])
def test_a_published_checkpoint_loads_with_its_noise(published, noise_type, shift):
    config = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps(config | {"noise_type": noise_type}))
    loaded = load_model(published)
    assert loaded.process.mixing.shift == shift
    assert (loaded.mask_id, loaded.sequence_length, loaded.vocab_size) == (3, 32, 97)
    canvas = Canvas.from_prompts([[5, 6, 7], [8]], 20)
    texts = blockwise(
        loaded.denoiser, loaded.process, canvas, linear_grid(loaded.process, 8), block_length=8,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert not (texts == 3).any()
    with pytest.raises(LoadError, match=r"has no tokenizer\.json, so the model knows ids but no text"):
        loaded.encode("text")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise_type": "loud"}, "describes no noise process"),
        ({"noise_type": math.nan}, "describes no noise process"),
        ({"min_log_snr": 9.0}, "describes no noise process"),
        ({"max_position_embeddings": None}, "describes no noise process"),
        ({"mask_token_id": 400}, "describes no noise process"),
    ],
)
def test_a_published_noise_that_is_none_is_refused(published, changes, message):
    config = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(GiddFormatError, match=message):
        load_model(published)


def test_a_published_mask_that_the_tokenizer_contradicts_is_refused(published, tmp_path):
    config = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps(config | {"mask_token_id": 3}))
    path = words_tokenizer(tmp_path / "tokenizer.json", ["a"])
    assert load_tokenizer(path).mask_id == 2
    with pytest.raises(GiddFormatError, match="mask_token_id is 3 but the tokenizer's mask is 2"):
        load_model(published, tokenizer=path)
    for name in ("noise_type", "max_position_embeddings"):
        config.pop(name)
    (published / "config.json").write_text(json.dumps(config))
    with pytest.raises(GiddFormatError, match="lacks max_position_embeddings, noise_type, without which no text"):
        load_model(published)
