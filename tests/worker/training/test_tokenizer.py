"""Tokenizers: the same from the same text, exact there and back, and as transformers expects them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from core.errors import InvalidInput
from tests.worker.training.tiny import prepared, texts
from worker.training import tokenizer

ODD_TEXT = "naïve — 東京 🙂\ttabs  spaces , punctuation ! 'quotes'\r\nend \x7f"


def learnt(vocab_size: int = 300) -> "tokenizer.Tokenizer":
    return prepared(tokenizer.learn(texts(50), rows=50, vocab_size=vocab_size))


def _ids(words: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer.encode(words, [text])[0].tolist()


def test_learning_is_deterministic_across_processes() -> None:
    program = "from tests.worker.training.test_tokenizer import learnt; print(learnt().to_str(), end='')"
    other = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert other == learnt().to_str() == learnt().to_str()


def test_small_data_yields_a_smaller_vocabulary() -> None:
    few = prepared(tokenizer.learn(["ab ab"], rows=1, vocab_size=4096))
    assert 257 < few.get_vocab_size() < 270


def test_learning_tells_how_far_it_is() -> None:
    facts = list(tokenizer.learn(texts(10), rows=10, vocab_size=300))
    assert (facts[0].done, facts[-1].done) == (0, 10)
    assert {(fact.phase, fact.total) for fact in facts} == {("tokenizer", 10)}


@pytest.mark.timeout(30)
def test_a_stop_does_not_wait_for_the_learning() -> None:
    told = Event()

    def endless() -> Iterator[str]:
        yield "ab ab"
        told.wait()

    facts = tokenizer.learn(endless(), rows=2, vocab_size=300)
    assert [next(facts).total for _ in range(2)] == [2, 2]
    facts.close()
    assert not told.is_set()
    told.set()


def test_an_error_in_the_texts_is_raised_where_they_are_learnt() -> None:
    def broken() -> Iterator[str]:
        yield "ab ab"
        raise InvalidInput("line 2 cannot be read")

    with pytest.raises(InvalidInput, match="line 2"):
        list(tokenizer.learn(broken(), rows=2, vocab_size=300))


def test_bytes_are_their_own_ids() -> None:
    words = tokenizer.for_transformers(tokenizer.of_bytes(), max_length=8)
    assert len(words) == 257
    assert _ids(words, ODD_TEXT) == [*ODD_TEXT.encode(), 256]


@pytest.mark.parametrize("kind", ["learnt", "bytes"])
def test_auto_tokenizer_loads_what_is_saved(kind: str, tmp_path: Path) -> None:
    words = tokenizer.for_transformers(learnt() if kind == "learnt" else tokenizer.of_bytes(), max_length=77)
    words.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.model_max_length == 77
    assert loaded.eos_token == loaded.bos_token == loaded.pad_token == "<|endoftext|>"
    for text in [ODD_TEXT, *texts(5)]:
        ids = loaded(text)["input_ids"]
        assert [*ids, loaded.eos_token_id] == _ids(words, text)
        assert loaded.decode(ids) == text
    assert _ids(tokenizer.load(tmp_path), ODD_TEXT) == _ids(words, ODD_TEXT)


def test_a_folder_without_a_tokenizer_has_none(tmp_path: Path) -> None:
    assert tokenizer.load(tmp_path) is None


@given(st.text(st.sampled_from("ab'1 \n\t\u3000東,<|endoftext|>"), max_size=60))
def test_a_long_text_in_parts_has_the_ids_of_the_whole(text: str) -> None:
    words = tokenizer.for_transformers(learnt(), max_length=8)
    with pytest.MonkeyPatch.context() as patch:
        whole = _ids(words, text)
        patch.setattr(tokenizer, "_CHARACTERS_AT_ONCE", 3)
        assert _ids(words, text) == whole
