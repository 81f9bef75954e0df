"""The tokens of a dataset: a few flat files, 4 bytes a token, mapped into memory and never held in it."""

import hashlib
import mmap
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from core.errors import DataError
from core.tokens.arrays import Block, Ids, Tokens
from worker.training.token_cache import Entry

_IDS, _LABELS, _BOUNDS = "ids.int32", "labels.int32", "bounds.int64"
_VALUES_AT_ONCE = 2**20


class TokenWriter:
    """Writes blocks to flat files in a folder; labels only where there are any that differ from the ids."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids = (folder / _IDS).open("wb")
        self._bounds = (folder / _BOUNDS).open("wb")
        self._bounds.write(np.int64(0).tobytes())
        self._labels: BinaryIO | None = None
        self._hashes = {_IDS: hashlib.sha256(), _BOUNDS: hashlib.sha256()}
        self._tokens = 0
        self._largest_id = 0
        self.rows = 0

    def append(self, block: Block) -> None:
        """Write a block. Raises OSError where the disk is full."""
        if block.labels is not None:
            self._labels = self._labels or self._labels_so_far()
            self._largest_id = max(self._largest_id, int(block.labels.max(initial=0)))
        if self._labels is not None:
            self._write(self._labels, _LABELS, block.ids if block.labels is None else block.labels)
        self._write(self._ids, _IDS, block.ids)
        self._write(self._bounds, _BOUNDS, block.ends + self._tokens)
        self._largest_id = max(self._largest_id, int(block.ids.max(initial=0)))
        self._tokens += len(block.ids)
        self.rows += len(block.ends)

    def close(self) -> dict[str, Any]:
        """Finish the files, and return what a reader would have to go through them for: `largest_id`, of all ids and
        labels, and `sha256`, which names all tokens, labels and bounds.
        """
        for file in filter(None, (self._ids, self._bounds, self._labels)):
            file.close()
        whole = "".join(f"{name}:{digest.hexdigest()};" for name, digest in sorted(self._hashes.items()))
        return {"largest_id": self._largest_id, "sha256": hashlib.sha256(whole.encode()).hexdigest()}

    def _write(self, file: BinaryIO, name: str, values: npt.NDArray[Any]) -> None:
        file.write(values.data)
        self._hashes[name].update(values.data)

    def _labels_so_far(self) -> BinaryIO:
        self._ids.flush()
        labels = (self._folder / _LABELS).open("wb")
        with (self._folder / _IDS).open("rb") as ids:
            shutil.copyfileobj(ids, labels)
        self._hashes[_LABELS] = self._hashes[_IDS].copy()
        return labels


def map_tokens(entry: Entry) -> Tokens:
    """Map the files that a TokenWriter wrote, to read only. They stay locked in the cache while any array lives."""
    ids: Ids = _map(entry.files[_IDS], np.int32)
    labels: Ids = _map(entry.files[_LABELS], np.int32) if _LABELS in entry.files else ids
    return Tokens(ids=ids, labels=labels, bounds=_map(entry.files[_BOUNDS], np.int64))


def _map(file: BinaryIO, dtype: type[Any]) -> npt.NDArray[Any]:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.ndarray(len(mapped) // np.dtype(dtype).itemsize, dtype=dtype, buffer=mapped)


def check_vocabulary(tokens: Tokens, *, largest_id: int, vocab_size: int, what: str) -> None:
    """Raise DataError, naming the row and the id, where a token id is not in the vocabulary."""
    if largest_id < vocab_size:
        return
    place, token_id = _first_beyond(tokens, vocab_size)
    row = int(np.searchsorted(tokens.bounds, place, side="right"))
    raise DataError(
        f"Row {row} of the {what} holds token id {token_id}, but the vocabulary ends at {vocab_size - 1}.",
        "Tokenize the dataset with the vocabulary of the model it is to train.",
    )


def _first_beyond(tokens: Tokens, vocab_size: int) -> tuple[int, int]:
    """Find the first id or label beyond the vocabulary, which is there, and return its place and itself."""
    for start in range(0, len(tokens.ids), _VALUES_AT_ONCE):
        for values in (tokens.ids, tokens.labels):
            part = values[start : start + _VALUES_AT_ONCE]
            beyond = np.flatnonzero(part >= vocab_size)
            if len(beyond):
                return start + int(beyond[0]), int(part[beyond[0]])
    raise AssertionError(f"no token id reaches {vocab_size}")
