"""Two lanes get what they end with together, and nothing where one would wait for the other."""

from typing import Any

import numpy as np
import pytest

from worker.training.lanes import share

LENGTHS = np.array([11, 11, 11, 11, 21, 21, 5, 41])


def loads(shares: Any) -> list[int]:
    """Each lane's padded positions."""
    return [sum(len(rows) * int(LENGTHS[rows].max() - 1) for rows in lane if len(rows)) for lane in shares]


def test_a_batch_is_shared_so_that_both_end_together() -> None:
    shares = share(LENGTHS, [np.array([0, 4, 1, 2, 5, 3])], (1, 1))
    assert shares is not None
    assert [lane[0].tolist() for lane in shares] == [[4, 5], [0, 1, 2, 3]]
    assert loads(shares) == [40, 40]


def test_a_window_is_shared_as_a_whole() -> None:
    window = [np.array([7]), np.array([0, 1]), np.array([2, 3])]
    shares = share(LENGTHS, window, (1, 1))
    assert shares is not None
    assert [[len(rows) for rows in lane] for lane in shares] == [[0, 2, 2], [1, 0, 0]]
    assert loads(shares) == [40, 40]
    for batch, first, second in zip(window, *shares, strict=True):
        assert sorted([*first, *second]) == sorted(batch)


def test_more_cores_get_more_rows() -> None:
    shares = share(LENGTHS, [np.array([0, 1, 2])], (2, 1))
    assert shares is not None
    assert [len(lane[0]) for lane in shares] == [2, 1]


@pytest.mark.parametrize("batch", [[7], [0, 1, 2], [4, 5, 0]], ids=["a single row", "three rows", "a short one"])
def test_where_one_lane_would_wait_for_the_other_there_is_one(batch: list[int]) -> None:
    assert share(LENGTHS, [np.array(batch)], (1, 1)) is None
