"""From a file's rows to tokens: nothing lost, nothing changed."""

from pathlib import Path

import pytest

from core.dataset_files import Row
from tests.worker.training.tiny import prepared, tokens, write_rows
from worker.training import dataset, tokenizer
from worker.training.dataset import check_vocabulary, tokenize
from worker.training.errors import DataError


def test_text_gets_its_end_and_token_ids_are_taken_as_they_are(tmp_path: Path) -> None:
    words = tokenizer.for_transformers(tokenizer.of_bytes(), max_length=8)
    read = prepared(tokenize(write_rows(tmp_path / "t.jsonl", ["ab", "c"]), words, total=2))
    assert read.ids.tolist() == [97, 98, 256, 99, 256]
    assert read.bounds.tolist() == [0, 3, 5]
    read = prepared(tokenize(write_rows(tmp_path / "i.jsonl", [[5, 6], [7]]), None, total=2))
    assert read.ids.tolist() == [5, 6, 7]
    assert read.labels is read.ids, "labels that repeat the ids take no memory"


def test_labels_of_their_own_are_kept(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "l.jsonl", [[1, 2], {"input_ids": [3, 4], "labels": [-100, 4]}])
    read = prepared(tokenize(file, None, total=2))
    assert read.labels.tolist() == [1, 2, -100, 4]


def test_many_rows_come_through_in_order(tmp_path: Path) -> None:
    rows = [[n, n + 1] for n in range(3000)]
    facts = list(tokenize(write_rows(tmp_path / "many.jsonl", rows), None, total=3000))
    assert facts[-1].done == facts[-1].total == 3000
    read = prepared(tokenize(write_rows(tmp_path / "many.jsonl", rows), None, total=3000))
    assert read.ids.reshape(-1, 2).tolist() == rows


def test_text_without_a_tokenizer_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tokenizer"):
        prepared(tokenize(write_rows(tmp_path / "t.jsonl", ["ab"]), None, total=1))


@pytest.mark.parametrize("labels", [None, [[1, 2], [3, 4], [5, 99]]])
def test_an_id_beyond_the_vocabulary_is_named_with_its_row(labels: list[list[int]] | None) -> None:
    rows = [[1, 2], [3, 4], [5, 99]] if labels is None else [[1, 2], [3, 4], [5, 6]]
    check_vocabulary(tokens(rows, labels), vocab_size=100, what="dataset")
    with pytest.raises(DataError, match=r"Row 3 of the dataset holds token id 99.* ends at 98"):
        check_vocabulary(tokens(rows, labels), vocab_size=99, what="dataset")


def test_rows_are_taken_together_only_as_far_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "_CHARACTERS_AT_ONCE", 25)
    rows = [Row(text="a" * 10) for _ in range(5)] + [Row(text="b" * 1000), Row(input_ids=[1] * 30, labels=[1] * 30)]
    taken = [[len(row.text or row.input_ids or ()) for row in chunk] for chunk in dataset._chunks(iter(rows))]
    assert taken == [[10, 10, 10], [10, 10, 1000], [30]]
