"""The published checkpoints' format on the command line: written from, scored, judged by, trained further."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers

from noiselaw.cli.main import EXIT_USER_ERROR, main
from noiselaw.hub.weights import write_weights

WORDS = [f"w{index}" for index in range(93)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """97 words, as many as the checkpoints have tokens; the mask is number 3, the published default."""
    names = ["<unk>", "<|endoftext|>", "<|empty|>", "<|mask|>", *WORDS]
    words = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    path = tmp_path_factory.mktemp("words") / "tokenizer.json"
    words.save(str(path))
    return path


@pytest.fixture(scope="module")
def data(tokenizer, tmp_path_factory):
    """Prepared data of that tokenizer."""
    from noiselaw.data.prepare import prepare

    folder = tmp_path_factory.mktemp("published")
    (folder / "texts").mkdir()
    for number in range(40):
        text = " ".join(WORDS[(number * step) % 93] for step in range(100))
        (folder / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    prepare([str(folder / "texts")], folder / "data", tokenizer=str(tokenizer), validation_fraction=0.2)
    return folder / "data"


@pytest.fixture(params=["gidd_tiny", "gidd_tiny_nobias"])
def checkpoint(request, reference_dir):
    return reference_dir / request.param


@pytest.fixture
def noiselaw(monkeypatch, capsys):
    """The program's standard output as JSON."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["noiselaw", *map(str, arguments), "--json"])
        main()
        return json.loads(capsys.readouterr().out)

    return call


def test_a_checkpoint_writes_in_blocks(checkpoint, tokenizer, noiselaw):
    options = ("--tokenizer", tokenizer, "--device", "cpu", "--prompt", "w1 w2", "w3", "--length", "20")
    record = noiselaw("sample", checkpoint, *options, "--sampler", "blockwise", "--block-length", "6", "--steps", "4")
    assert [found["tokens"][:2] for found in record["samples"]] == [[5, 6], [7, record["samples"][1]["tokens"][1]]]
    assert all(len(found["tokens"]) == 20 and 3 not in found["tokens"] for found in record["samples"])


def test_a_checkpoint_is_scored(checkpoint, tokenizer, data, noiselaw):
    words = noiselaw("evaluate", checkpoint, "--tokenizer", tokenizer, "--text", "w1 w2 w3", "--prompt", "w9")
    assert (words["num_tokens"], words["num_prompt_tokens"], words["is_bound"]) == (3, 1, True)
    found = noiselaw("evaluate", checkpoint, "--tokenizer", tokenizer, "--data", data, "--num-sequences", "8")
    assert found["sequence_length"] == 32
    assert found["nats_per_token"] > 3  # it was never trained


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_shards_of_half_precision_write_what_one_file_writes(reference_dir, tokenizer, noiselaw, tmp_path, dtype):
    """Whole files and shards of the same halved weights; a tokenizer.json in the folder needs no naming."""
    tensors = {
        name: tensor.to(dtype) for name, tensor in load_file(reference_dir / "gidd_tiny" / "model.safetensors").items()
    }
    texts = []
    for name, shard_bytes in (("one", 10**9), ("many", 50_000)):
        (tmp_path / name).mkdir()
        shutil.copy(reference_dir / "gidd_tiny" / "config.json", tmp_path / name)
        shutil.copy(tokenizer, tmp_path / name)
        write_weights(tmp_path / name, tensors, shard_bytes=shard_bytes)
        texts.append(noiselaw("sample", tmp_path / name, "--steps", "8", "--device", "cpu")["samples"])
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 5
    assert texts[0] == texts[1]


def test_fine_tuning_starts_from_a_checkpoint(reference_dir, data, tmp_path, monkeypatch, capsys):
    """The error's own advice makes the spec fit."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        f"{{name: t, data: {{path: {data}, sequence_length: 32}}, model: {{num_layers: 1, width: 16, num_heads: 2}}, "
        "objective: {kind: diffusion, noise: balanced}, batch_sequences: 4, schedule: {num_steps: 2}, "
        "validation: {num_sequences: 4, num_points: 1}, runtime: {num_threads: 1, device: cpu}}",
        encoding="utf-8",
    )
    command = ["noiselaw", "train", str(spec), "--init", str(reference_dir / "gidd_tiny"), "--out", str(tmp_path / "t")]
    monkeypatch.setattr("sys.argv", [*command, "--quiet"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == EXIT_USER_ERROR
    advice = capsys.readouterr().err.split("; add ")[1].split()
    monkeypatch.setattr("sys.argv", [*command, "--quiet", *advice])
    main()
    assert "step 2" in capsys.readouterr().out


def test_without_a_tokenizer_the_remedy_is_named(checkpoint, monkeypatch, capsys):
    for arguments in (("sample", "--prompt", "w1"), ("evaluate", "--text", "w1")):
        monkeypatch.setattr("sys.argv", ["noiselaw", arguments[0], str(checkpoint), *arguments[1:]])
        with pytest.raises(SystemExit):
            main()
        assert "name it with --tokenizer" in capsys.readouterr().err
