"""The tokens of a dataset, in memory or mapped into it: flat arrays of ids and labels, and where rows end."""

import mmap
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.dataset_files import IGNORED_LABEL
from core.tokens.batches import IntArray

Ids = npt.NDArray[np.int32]

_VALUES_AT_ONCE = 2**20


@dataclass(frozen=True)
class Tokens:
    """All rows of a dataset, end to end: row r is `ids[bounds[r] : bounds[r + 1]]`.

    `labels` is the very array `ids` where every row is its own label.
    """

    ids: Ids
    labels: Ids
    bounds: IntArray

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.bounds) - 1


@dataclass(frozen=True)
class Block:
    """The next tokens of a dataset. `labels` is None where they are the ids; `ends` says after how many of these
    tokens a row ends. The last row of a block may go on in the next.
    """

    ids: Ids
    labels: Ids | None
    ends: IntArray


def count_loss(labels: Ids, begins: IntArray, ends: IntArray) -> IntArray:
    """Return how many labels from each begin to before its end carry loss, in one pass over all labels.

    Of labels on disk only a small part is in memory at any time.
    """
    points, counts = np.concatenate((begins, ends)), np.empty(len(begins) + len(ends), dtype=np.int64)
    order = np.argsort(points, kind="stable")
    in_order, before = points[order], 0
    for start in range(0, len(labels) + 1, _VALUES_AT_ONCE):
        carries_loss = labels[start : start + _VALUES_AT_ONCE] != IGNORED_LABEL
        first, end = np.searchsorted(in_order, (start, start + _VALUES_AT_ONCE))
        inside = order[first:end]
        up_to = np.concatenate(([0], np.cumsum(carries_loss)))
        counts[inside] = before + up_to[points[inside] - start]
        before += up_to[-1]
        _forget(labels)
    return counts[len(begins) :] - counts[: len(begins)]


def _forget(values: Ids) -> None:
    """Give back the memory of what was read from a mapped file; reading it again brings it back."""
    if isinstance(values.base, mmap.mmap):
        values.base.madvise(mmap.MADV_DONTNEED)
