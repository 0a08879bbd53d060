"""Tokenizers: exact round trips, special tokens that text cannot forge, deterministic training."""

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from noiselaw.data.tokenizer import bpe_size, load_tokenizer, sample_texts, split_text, tokenizer_file, train_bpe


def word_level(path: Path, *words: str) -> Path:
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(path))
    return path


def test_trained_tokenizer_round_trips_any_text(texts: list[str]):
    tokenizer = train_bpe(texts, 300)
    assert tokenizer.vocab_size == 300
    for text in [*texts, "", " \n\t\r\n", "emoji 🦆 \x00 \u200b", "unseen ΩЖ中"]:
        (ids,) = tokenizer.encode([text])
        assert ids.dtype == np.int64
        assert tokenizer.decode(ids) == text


def test_training_is_deterministic(texts: list[str]):
    assert train_bpe(texts, 300).to_json() == train_bpe(texts, 300).to_json()


def test_special_tokens_are_distinct_and_text_cannot_forge_them(texts: list[str]):
    tokenizer = train_bpe(texts, 300)
    special = {tokenizer.end_of_text_id, tokenizer.mask_id, tokenizer.empty_id}
    assert len(special) == 3
    forged = "a<|mask|> <|endoftext|><|empty|>"
    (ids,) = tokenizer.encode([forged])
    assert not special & set(ids.tolist())
    assert tokenizer.decode(ids) == forged


def test_too_little_text_for_the_vocabulary():
    with pytest.raises(ValueError, match=r"bpe:5000.*yields only \d+ tokens; ask for bpe:\d+"):
        train_bpe(["one short text"], 5000)


def test_known_special_tokens_are_found_and_missing_ones_added(tmp_path: Path):
    path = word_level(tmp_path / "tokenizer.json", "[UNK]", "noise", "</s>", "[MASK]")
    tokenizer = load_tokenizer(path)
    assert (tokenizer.end_of_text_id, tokenizer.mask_id, tokenizer.empty_id) == (2, 3, 4)
    assert tokenizer.vocab_size == 5
    saved = tmp_path / "saved.json"
    saved.write_text(tokenizer.to_json())
    again = load_tokenizer(saved)
    assert (again.end_of_text_id, again.mask_id, again.empty_id, again.vocab_size) == (2, 3, 4, 5)


def test_settings_of_the_file_that_would_change_the_text_are_off(texts: list[str], tmp_path: Path):
    tokenizer = train_bpe(texts, 300).tokenizer
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    for text, ids in zip(texts[:3], loaded.encode(texts[:3]), strict=True):
        assert loaded.decode(ids) == text


def test_vocabulary_counts_gaps(tmp_path: Path):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "far": 41}, unk_token="[UNK]"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    ids = {loaded.end_of_text_id, loaded.mask_id, loaded.empty_id}
    assert len(ids | {0, 41}) == 5
    assert loaded.vocab_size == max(ids | {41}) + 1


def test_file_or_its_folder(tmp_path: Path):
    path = word_level(tmp_path / "tokenizer.json", "a")
    assert tokenizer_file(str(path)) == tokenizer_file(str(tmp_path)) == path
    with pytest.raises(ValueError, match=r"nowhere.*no such file; give a tokenizer.json, its folder, or bpe:SIZE"):
        tokenizer_file(str(tmp_path / "nowhere"))


def test_not_a_tokenizer(tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    path.write_text('{"model": 1}')
    with pytest.raises(ValueError, match="not a tokenizer of the `tokenizers` library"):
        load_tokenizer(path)


def test_bpe_size():
    assert bpe_size("bpe:1024") == 1024
    assert bpe_size("path/tokenizer.json") is None
    for wrong in ("bpe:", "bpe:258", "bpe:-5", "bpe:1e3"):
        with pytest.raises(ValueError, match="at least 259, as in bpe:1024"):
            bpe_size(wrong)


def test_pieces_join_to_the_text():
    text = "line one\nline two\n" + "x" * 25 + "\nend"
    pieces = split_text(text, 10)
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 10
    assert pieces[:2] == ["line one\n", "line two\n"]
    assert split_text("", 10) == [""]


def test_long_texts_are_encoded_in_pieces(texts: list[str], monkeypatch: pytest.MonkeyPatch):
    tokenizer = train_bpe(texts, 300)
    monkeypatch.setattr("noiselaw.data.tokenizer.split_text", lambda text: split_text(text, 50))
    for text, ids in zip(texts, tokenizer.encode(texts), strict=True):
        assert tokenizer.decode(ids) == text


def test_sample_does_not_depend_on_order_and_keeps_the_cap():
    generator = np.random.default_rng(0)
    keyed = [(generator.bytes(8), "x" * int(generator.integers(1, 50))) for _ in range(200)]
    sample = sample_texts(keyed, 1000)
    assert sample == sample_texts(reversed(keyed), 1000)
    assert sum(len(text) for _, text in sample) <= 1000
    assert len(sample_texts(keyed, 10**9)) == 200
    smallest = sorted(keyed)
    assert sample == smallest[: len(sample)]
    assert sum(len(text) for _, text in smallest[: len(sample) + 1]) > 1000
    parts = [sample_texts(keyed[start : start + 70], 1000) for start in range(0, 200, 70)]
    assert sample == sample_texts([pair for part in parts for pair in part], 1000)


def test_sample_of_one_long_text_is_its_beginning():
    assert sample_texts([(b"a", "0123456789")], 4) == [(b"a", "0123")]
