"""Tokenizers: the same from the same text, exact there and back, and as transformers expects them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from core.errors import InvalidInput
from core.tokens import vocabulary
from tests.worker.training.tiny import prepared, texts
from worker.training import tokenizer

ODD_TEXT = "naïve — 東京 🙂\ttabs  spaces , punctuation ! 'quotes'\r\nend \x7f"


def learnt(vocab_size: int = 300) -> "tokenizer.Tokenizer":
    return prepared(tokenizer.learn([[text] for text in texts(50)], rows=50, vocab_size=vocab_size))


def _ids(words: PreTrainedTokenizerFast, text: str) -> list[int]:
    [ids] = vocabulary.encode(words, [text], [False])
    return ids


def test_learning_is_deterministic_across_processes() -> None:
    program = "from tests.worker.training.test_tokenizer import learnt; print(learnt().to_str(), end='')"
    other = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert other == learnt().to_str() == learnt().to_str()


def test_small_data_yields_a_smaller_vocabulary() -> None:
    few = prepared(tokenizer.learn([["ab ab"]], rows=1, vocab_size=4096))
    assert 257 < few.get_vocab_size() < 270


def test_learning_tells_how_far_it_is() -> None:
    facts = list(tokenizer.learn([[text, text] for text in texts(10)], rows=10, vocab_size=300))
    assert (facts[0].done, facts[-1].done) == (0, 10)
    assert {(fact.phase, fact.total) for fact in facts} == {("tokenizer", 10)}


@pytest.mark.timeout(30)
def test_a_stop_does_not_wait_for_the_learning() -> None:
    told = Event()

    def endless() -> Iterator[list[str]]:
        yield ["ab ab"]
        told.wait()

    facts = tokenizer.learn(endless(), rows=2, vocab_size=300)
    assert [next(facts).total for _ in range(2)] == [2, 2]
    facts.close()
    assert not told.is_set()
    told.set()


def test_an_error_in_the_texts_is_raised_where_they_are_learnt() -> None:
    def broken() -> Iterator[list[str]]:
        yield ["ab ab"]
        raise InvalidInput("line 2 cannot be read")

    with pytest.raises(InvalidInput, match="line 2"):
        list(tokenizer.learn(broken(), rows=2, vocab_size=300))


def test_bytes_are_their_own_ids() -> None:
    words = tokenizer.for_transformers(vocabulary.of_bytes(), max_length=8)
    assert len(words) == 257
    assert _ids(words, ODD_TEXT) == list(ODD_TEXT.encode())


@pytest.mark.parametrize("kind", ["learnt", "bytes"])
def test_auto_tokenizer_loads_what_is_saved(kind: str, tmp_path: Path) -> None:
    words = tokenizer.for_transformers(learnt() if kind == "learnt" else vocabulary.of_bytes(), max_length=77)
    words.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.model_max_length == 77
    assert loaded.eos_token == loaded.bos_token == loaded.pad_token == "<|endoftext|>"
    for text in [ODD_TEXT, *texts(5)]:
        ids = loaded(text)["input_ids"]
        assert ids == _ids(words, text)
        assert loaded.decode(ids) == text
    assert _ids(tokenizer.load(tmp_path), ODD_TEXT) == _ids(words, ODD_TEXT)


def test_a_tokenizer_of_vocabulary_and_merges_alone_is_one_too(tmp_path: Path) -> None:
    words = learnt()
    words.model.save(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merges.txt", "vocab.json"]
    config = {"model_type": "gpt2", "tokenizer_class": "GPT2Tokenizer"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = tokenizer.load(tmp_path)
    assert loaded is not None
    assert _ids(loaded, ODD_TEXT) == _ids(tokenizer.for_transformers(words, max_length=8), ODD_TEXT)


def test_a_tokenizer_that_was_saved_with_a_length_cuts_and_fills_nothing(tmp_path: Path) -> None:
    words = tokenizer.for_transformers(vocabulary.of_bytes(), max_length=77)
    words.backend_tokenizer.enable_truncation(2)
    words.backend_tokenizer.enable_padding(length=9)
    words.save_pretrained(tmp_path)
    loaded = tokenizer.load(tmp_path)
    assert loaded is not None
    assert _ids(loaded, "abcd") == list(b"abcd")


def test_a_folder_without_a_tokenizer_has_none(tmp_path: Path) -> None:
    assert tokenizer.load(tmp_path) is None


@pytest.mark.parametrize("kind", ["learnt", "bytes"])
def test_a_tokenizer_is_the_same_after_it_was_saved_and_another_is_not(kind: str, tmp_path: Path) -> None:
    words = tokenizer.for_transformers(learnt() if kind == "learnt" else vocabulary.of_bytes(), max_length=77)
    words.save_pretrained(tmp_path)
    loaded = tokenizer.load(tmp_path)
    assert loaded is not None
    assert tokenizer.identity(loaded) == tokenizer.identity(words)
    assert tokenizer.identity(words) != tokenizer.identity(tokenizer.for_transformers(learnt(280), max_length=77))


@given(st.text(st.sampled_from("ab'1 \n\t\u3000東,<|endoftext|>"), max_size=60))
def test_a_long_text_in_parts_has_the_ids_of_the_whole(text: str) -> None:
    words = tokenizer.for_transformers(learnt(), max_length=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "CHARACTERS_AT_ONCE", 3)
        parts = list(vocabulary.parts(text))
    assert "".join(parts) == text
    encoded = vocabulary.encode(words, parts, [place > 0 for place in range(len(parts))])
    assert [token_id for ids in encoded for token_id in ids] == _ids(words, text)


def _sentencepiece(kind: str, *odd: str) -> PreTrainedTokenizerFast:
    """A tokenizer that marks where words begin, and so also the beginning of a text."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    if kind == "llama":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind)
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", "</s>"], show_progress=False)
    made.train_from_iterator([*" ".join(texts(50)).split(), "\n\n", "  ", *odd], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("kind", ["always", "first", "llama"])
@pytest.mark.parametrize("behind", ["import", " import", "  import", "\nimport", "\n import"])
def test_what_comes_behind_other_text_is_encoded_so(kind: str, behind: str) -> None:
    words = _sentencepiece(kind)
    before, after = vocabulary.encode(words, ["the", behind], [False, True])
    assert before == _ids(words, "the")
    assert before + after == _ids(words, f"the{behind}")
    if behind == "import":
        assert after != _ids(words, behind), "a text of its own begins with a mark"


@pytest.mark.parametrize("kind", ["always", "first", "llama"])
def test_whatever_its_tokens_a_tokenizer_adds_no_character(kind: str) -> None:
    words = _sentencepiece(kind, *["0\n"] * 9)
    assert "0\n" in words.get_vocab()
    [_, after] = vocabulary.encode(words, ["the", "\nimport"], [False, True])
    assert after == _ids(words, "\nimport"), "with a mark, which is all that can be had"
