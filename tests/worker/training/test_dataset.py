"""Tokens on disk: what is written is what is mapped, and what is asked of it is answered without holding it."""

import mmap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError
from core.tokens import arrays
from core.tokens.arrays import Block, Tokens, count_loss
from core.tokens.batches import IntArray
from tests.worker.training.tiny import tokens
from worker.training import dataset
from worker.training.dataset import TokenWriter, check_vocabulary, map_tokens
from worker.training.token_cache import TokenCache


def _block(ids: list[int], ends: list[int], labels: list[int] | None = None) -> Block:
    own = None if labels is None else np.array(labels, dtype=np.int32)
    return Block(ids=np.array(ids, dtype=np.int32), labels=own, ends=np.array(ends, dtype=np.int64))


def _written(folder: Path, *blocks: Block) -> tuple[Tokens, int, set[str]]:
    """The tokens as they are mapped, their largest id, and the files they lie in."""
    with TokenCache(folder, max_bytes=2**20).draft("key") as draft:
        writer = TokenWriter(draft.folder)
        for block in blocks:
            writer.append(block)
        with draft.publish(writer.close()) as entry:
            return map_tokens(entry), entry.meta["largest_id"], set(entry.files)


def test_blocks_come_back_end_to_end(tmp_path: Path) -> None:
    # The second row goes on over three blocks, of which the last but one ends no row.
    read, largest_id, files = _written(
        tmp_path, _block([5, 6, 7], [2]), _block([8], []), _block([9, 2**31 - 1], [1, 2]), _block([], [])
    )
    assert read.ids.tolist() == [5, 6, 7, 8, 9, 2**31 - 1]
    assert read.bounds.tolist() == [0, 2, 5, 6]
    assert read.rows == 3
    assert largest_id == 2**31 - 1
    assert read.labels is read.ids, "labels that repeat the ids take no space"
    assert files == {"ids.int32", "bounds.int64"}


def test_labels_are_written_from_the_first_that_differs(tmp_path: Path) -> None:
    read, largest_id, _ = _written(
        tmp_path, _block([1, 2], [2]), _block([3, 4], [2], labels=[-100, 9]), _block([5], [1])
    )
    assert read.ids.tolist() == [1, 2, 3, 4, 5]
    assert read.labels.tolist() == [1, 2, -100, 9, 5]
    assert largest_id == 9, "labels count too"


def test_tokens_are_mapped_to_read_only(tmp_path: Path) -> None:
    read, _, _ = _written(tmp_path, _block([1, 2], [2], labels=[1, -100]))
    for array in (read.ids, read.labels, read.bounds):
        assert isinstance(array.base, mmap.mmap)
        assert not array.flags.writeable


@pytest.mark.parametrize("labels", [None, [[1, 2], [3, 4], [5, 99]]])
@pytest.mark.parametrize("at_once", [2**20, 1])
def test_an_id_beyond_the_vocabulary_is_named_with_its_row(
    labels: list[list[int]] | None, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "_VALUES_AT_ONCE", at_once)
    rows = [[1, 2], [3, 4], [5, 99]] if labels is None else [[1, 2], [3, 4], [5, 6]]
    check_vocabulary(tokens(rows, labels), largest_id=99, vocab_size=100, what="dataset")
    with pytest.raises(DataError, match=r"Row 3 of the dataset holds token id 99.* ends at 98"):
        check_vocabulary(tokens(rows, labels), largest_id=99, vocab_size=99, what="dataset")


@given(
    labels=st.lists(st.sampled_from([-100, 0, 7]), min_size=1, max_size=30),
    places=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=8),
    at_once=st.integers(1, 40),
)
def test_loss_is_counted_between_any_places(labels: list[int], places: list[tuple[int, int]], at_once: int) -> None:
    pairs = [sorted((min(begin, len(labels)), min(end, len(labels)))) for begin, end in places]
    begins: IntArray = np.array([begin for begin, _ in pairs], dtype=np.int64)
    ends: IntArray = np.array([end for _, end in pairs], dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "_VALUES_AT_ONCE", at_once)
        counted = count_loss(np.array(labels, dtype=np.int32), begins, ends)
    assert counted.tolist() == [sum(label != -100 for label in labels[begin:end]) for begin, end in pairs]


def test_counting_loss_leaves_mapped_labels_on_disk(tmp_path: Path) -> None:
    count = 2**22
    own = np.where(np.arange(count) % 3, np.int32(-100), np.int32(5))
    read, _, _ = _written(tmp_path, Block(ids=np.zeros(count, np.int32), labels=own, ends=np.array([count])))
    assert count_loss(read.labels, np.array([0]), np.array([count])).tolist() == [count // 3 + 1]
    assert _resident(read.labels.ctypes.data) < 2**20, "16 MiB were read"


def _resident(address: int) -> int:
    """How many bytes of the mapping at this address are in this process's memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.startswith(f"{address:08x}-"):
            return next(int(field.split()[1]) * 1024 for field in lines if field.startswith("Rss:"))
    raise AssertionError("it is not mapped")
