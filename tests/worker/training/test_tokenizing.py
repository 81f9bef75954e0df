"""From a file's rows to tokens: nothing lost, nothing changed, and loss where it belongs."""

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from core.dataset_files import DataFile
from core.errors import DataError
from core.tokens import encoding, vocabulary
from core.tokens.arrays import Tokens
from tests.worker.training.tiny import prepared, write_rows
from worker.training import rows as rows_module
from worker.training import tokenizer
from worker.training.cached import tokenized
from worker.training.dataset import TokenWriter
from worker.training.facts import Preparing
from worker.training.rows import look_through
from worker.training.token_cache import TokenCache
from worker.training.tokenizing import tokenize


@pytest.fixture
def words() -> PreTrainedTokenizerFast:
    """The tokenizer of bytes: ids that can be read."""
    return tokenizer.for_transformers(vocabulary.of_bytes(), max_length=8)


def _read(folder: Path, rows: list[Any], words: PreTrainedTokenizerFast | None) -> Tokens:
    file = write_rows(folder / "rows.jsonl", rows)
    cache = TokenCache(folder / "cache", max_bytes=2**30)
    return prepared(tokenized(file, prepared(look_through(file)), words, cache)).tokens


def _facts(folder: Path, file: DataFile, words: PreTrainedTokenizerFast) -> list[Preparing]:
    return list(tokenize(file, prepared(look_through(file)), words, TokenWriter(folder)))


def test_text_gets_its_end_and_token_ids_are_taken_as_they_are(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    read = _read(tmp_path, ["ab", "c"], words)
    assert read.ids.tolist() == [97, 98, 256, 99, 256]
    assert read.bounds.tolist() == [0, 3, 5]
    assert read.labels is read.ids
    read = _read(tmp_path, [[5, 6], [7]], None)
    assert read.ids.tolist() == [5, 6, 7]
    assert read.labels is read.ids


def test_a_text_that_brings_its_end_gets_no_second(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    end = words.eos_token
    read = _read(tmp_path, [f"a{end}", f"{end}b", f"c{end}\n", {"text": "d"}], words)
    assert read.ids.tolist() == [97, 256, 256, 98, 256, 99, 256, 10, 256, 100, 256]
    assert read.bounds.tolist() == [0, 2, 5, 9, 11]


def test_labels_of_their_own_are_kept(tmp_path: Path) -> None:
    read = _read(tmp_path, [[1, 2], {"input_ids": [3, 4], "labels": [-100, 4]}], None)
    assert read.labels.tolist() == [1, 2, -100, 4]


def test_a_completion_and_its_end_carry_loss_and_its_prompt_does_not(
    tmp_path: Path, words: PreTrainedTokenizerFast
) -> None:
    read = _read(tmp_path, [{"prompt": "ab", "completion": " c"}, {"prompt": "", "completion": "d"}], words)
    assert read.ids.tolist() == [97, 98, 32, 99, 256, 100, 256]
    assert read.labels.tolist() == [-100, -100, 32, 99, 256, 100, 256]
    assert read.bounds.tolist() == [0, 5, 7]


def test_a_prompt_has_the_ids_it_has_without_its_completion(tmp_path: Path) -> None:
    learnt = prepared(tokenizer.learn([["ab ab ab"]], rows=1, vocab_size=258))
    words = tokenizer.for_transformers(learnt, max_length=8)
    [a], [b] = vocabulary.encode(words, ["a", "b"], [False, False])
    [joined] = vocabulary.encode(words, ["ab"], [False])
    assert len(joined) == 1, "together they would be one token, which nobody could be asked to go on from"
    read = _read(tmp_path, [{"prompt": "a", "completion": "b"}], words)
    assert read.ids.tolist() == [a, b, words.eos_token_id]
    assert read.labels.tolist() == [-100, b, words.eos_token_id]


def test_many_rows_come_through_in_order(
    tmp_path: Path, words: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [[n, n + 1] for n in range(3000)]
    monkeypatch.setattr(encoding, "_IDS_AT_ONCE", 1000)
    assert _read(tmp_path, ids, None).ids.reshape(-1, 2).tolist() == ids
    monkeypatch.setattr(encoding, "_PIECES_AT_ONCE", 7)
    texts = [str(n) for n in range(3000)]
    read = _read(tmp_path, texts, words)
    assert bytes(read.ids[read.ids != 256].astype("uint8")).decode() == "".join(texts)
    assert read.rows == 3000


def test_a_long_text_spans_chunks(
    tmp_path: Path, words: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "CHARACTERS_AT_ONCE", 10)
    monkeypatch.setattr(encoding, "CHARACTERS_AT_ONCE", 10)
    long = "the import statement binds a name" * 5
    read = _read(tmp_path, [{"prompt": long, "completion": long}, {"prompt": "a", "completion": "b"}], words)
    assert read.bounds.tolist() == [0, 2 * len(long) + 1, 2 * len(long) + 4]
    assert read.ids.tolist() == [*(long + long).encode(), 256, 97, 98, 256]
    assert read.labels.tolist() == [-100] * len(long) + [*long.encode(), 256, -100, 98, 256]


def test_text_without_a_tokenizer_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tokenizer"):
        _read(tmp_path, ["ab"], None)


def test_a_tokenizer_without_an_end_of_text_is_a_data_error(tmp_path: Path, words: PreTrainedTokenizerFast) -> None:
    words.eos_token = None
    with pytest.raises(DataError, match="no end of text"):
        _read(tmp_path, ["ab"], words)


def test_a_damaged_file_is_a_data_error_and_its_tokens_are_not_kept(
    tmp_path: Path, words: PreTrainedTokenizerFast
) -> None:
    file, cache = write_rows(tmp_path / "rows.jsonl", ["ab", "cd"]), TokenCache(tmp_path / "cache", max_bytes=2**20)
    known = prepared(look_through(file))
    file = file.model_copy(update={"known": known})
    file.path.write_text(file.path.read_text().replace("cd", "ce"))
    with pytest.raises(DataError, match="is damaged"):
        prepared(tokenized(file, known, words, cache))
    assert list((tmp_path / "cache").iterdir()) == []


def test_progress_is_told_to_the_end(
    tmp_path: Path, words: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_rows(tmp_path / "rows.jsonl", ["ab"] * 3000)
    assert _facts(tmp_path, file, words) == [Preparing(phase="tokens", done=3000, total=3000)]
    monkeypatch.setattr(rows_module, "_SECONDS_BETWEEN_FACTS", 0.0)
    told = [fact.done for fact in _facts(tmp_path, file, words)]
    assert len(told) > 2
    assert told == sorted(told)
    assert told[-1] == 3000


def test_a_slow_chunk_does_not_silence_the_trainer(
    tmp_path: Path, words: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "CHARACTERS_AT_ONCE", 2**30)  # a single chunk, which takes over a second
    file = write_rows(tmp_path / "rows.jsonl", ["the import statement " * 2**17] * 2)
    facts, told_at = tokenize(file, prepared(look_through(file)), words, TokenWriter(tmp_path)), [time.monotonic()]
    for _ in facts:
        told_at.append(time.monotonic())
    assert len(told_at) > 3
    assert max(later - sooner for sooner, later in pairwise(told_at)) < 1.0


def test_a_look_through_a_file_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_rows(tmp_path / "rows.jsonl", ["ab"] * 2500 + [""])
    monkeypatch.setattr(rows_module, "_SECONDS_BETWEEN_FACTS", 0.0)
    facts = list(look_through(file))
    assert [fact.total for fact in facts] == [1000, 2000, 2500, 2500]
    known = prepared(look_through(file))
    assert (known.rows, known.skipped_rows, known.columns) == (2500, 1, ("text",))
    assert list(look_through(file.model_copy(update={"known": known}))) == [], "nobody looks twice"
