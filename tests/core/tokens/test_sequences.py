"""From tokens to sequences: nothing lost unseen, nothing that carries no loss."""

import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest

import core.tokens.sequences
from core.job_spec import Sequence, ValidationFraction
from core.tokens.arrays import Tokens
from core.tokens.sequences import Sequences, cut, hold_out
from tests.worker.training.tiny import ragged_rows, sequences


def as_lists(cut: Sequences) -> list[list[int]]:
    return [cut.ids[start : start + length].tolist() for start, length in zip(cut.starts, cut.lengths, strict=True)]


def test_a_row_within_max_length_is_one_sequence() -> None:
    assert as_lists(sequences([[1, 2, 3], [4, 5, 6, 7]], max_length=4)) == [[1, 2, 3], [4, 5, 6, 7]]


def test_a_long_row_is_cut_end_to_end() -> None:
    cut = sequences([list(range(10))], max_length=4)
    assert as_lists(cut) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert cut.dropped == 0


def test_stride_overlaps_and_the_first_window_that_reaches_the_end_is_the_last() -> None:
    cut = sequences([list(range(9)), list(range(10, 16))], max_length=5, stride=2)
    assert as_lists(cut) == [[0, 1, 2, 3, 4], [2, 3, 4, 5, 6], [4, 5, 6, 7, 8], [10, 11, 12, 13, 14], [12, 13, 14, 15]]


def test_short_tails_and_rows_are_dropped_and_counted() -> None:
    cut = sequences([list(range(10)), [7, 8], [9] * 4], max_length=4, min_length=3)
    assert as_lists(cut) == [[0, 1, 2, 3], [4, 5, 6, 7], [9] * 4]
    assert cut.dropped == 2


def test_sequences_whose_labels_are_all_ignored_are_left_out_and_counted() -> None:
    rows = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    # Of the last row only the first label counts, and a first token has nothing to be predicted from.
    cut = sequences(rows, labels=[[1, -100, 3], [-100] * 3, [7, -100, -100]], max_length=4)
    assert as_lists(cut) == [[1, 2, 3]]
    assert cut.loss_tokens.tolist() == [1]
    assert cut.silent == 2


@pytest.mark.parametrize(
    ("rows", "fraction", "held"), [(100, 0.05, 5), (10, 0.01, 1), (2, 0.5, 1), (3, 0.5, 2), (1, 0.5, 0)]
)
def test_hold_out_keeps_rows_on_both_sides(rows: int, fraction: float, held: int) -> None:
    count = ValidationFraction(fraction=fraction).held_out(rows)
    kept, out = hold_out(rows, count, seed=1)
    assert len(out) == held
    assert sorted([*kept, *out]) == list(range(rows))
    assert np.array_equal(out, hold_out(rows, count, seed=1)[1])


@pytest.mark.parametrize("mode", ["document", "packed"])
@pytest.mark.parametrize("block", [1, 2, 7])
def test_rows_are_cut_block_by_block_as_all_at_once(monkeypatch: pytest.MonkeyPatch, mode: str, block: int) -> None:
    rows = ragged_rows(60, longest=17)
    labels = [[-100 if token % 3 else token for token in row] for row in rows]
    asked = {"max_length": 7, "min_length": 3, "mode": mode}
    whole = sequences(rows, labels, **asked)
    monkeypatch.setattr(core.tokens.sequences, "_BLOCK_ROWS", block)
    cut = sequences(rows, labels, **asked)
    assert whole.dropped
    assert whole.silent
    np.testing.assert_equal(asdict(cut), asdict(whole))


@pytest.mark.parametrize(("mode", "times"), [("document", 1.6), ("packed", 2.6)])
def test_many_rows_take_little_beside_what_comes_of_them(mode: str, times: float) -> None:
    ids = np.zeros(3_000_000, dtype=np.int32)
    tokens, rows = Tokens(ids=ids, labels=ids, bounds=np.arange(0, 3_000_001, 2)), np.arange(1_500_000)
    tracemalloc.start()
    try:
        made = cut(tokens, rows, Sequence.model_validate({"max_length": 128, "mode": mode}))
        kept, peak = tracemalloc.get_traced_memory()
        assert len(made)
        assert peak < times * kept
    finally:
        tracemalloc.stop()
