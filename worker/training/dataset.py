"""From a dataset's file to tokens: rows become token ids and labels.

Everything is held in a few flat numpy arrays, 4 bytes a token, never in a Python object per row.
"""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from core.dataset_files import DataFile, Row, read_rows
from worker.training.batches import IntArray
from worker.training.errors import DataError
from worker.training.facts import Preparing
from worker.training.tokenizer import encode

Ids = npt.NDArray[np.int32]

_ROWS_AT_ONCE = 1024
_CHARACTERS_AT_ONCE = 2**20
_SECONDS_BETWEEN_FACTS = 0.5


@dataclass(frozen=True)
class Tokens:
    """All rows of a file, end to end: row r is `ids[bounds[r] : bounds[r + 1]]`.

    `labels` is the very array `ids` where every row is its own label.
    """

    ids: Ids
    labels: Ids
    bounds: IntArray

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.bounds) - 1


def tokenize(
    file: DataFile, tokenizer: PreTrainedTokenizerFast | None, *, total: int
) -> Generator[Preparing, None, Tokens]:
    """Read a file of `total` rows into tokens, telling at most twice a second how far it is.

    A text becomes its tokens and the end of text; rows of token ids are taken as they are. Raises DataError for a text
    where there is no tokenizer, InvalidInput for a row that cannot be read.
    """
    ids, labels, lengths = [], [], []
    done, told = 0, float("-inf")
    for rows in _chunks(read_rows(file)):
        row_ids, row_labels = _ids_and_labels(rows, tokenizer)
        lengths += [len(row) for row in row_ids]
        ids.append(np.concatenate(row_ids))
        labels.append(ids[-1] if row_labels is None else np.concatenate(row_labels))
        done += len(rows)
        if time.monotonic() - told >= _SECONDS_BETWEEN_FACTS or done == total:
            told = time.monotonic()
            yield Preparing(phase="tokens", done=done, total=total)
    flat = np.concatenate(ids)
    same = all(chunk is label_chunk for chunk, label_chunk in zip(ids, labels, strict=True))
    bounds = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    return Tokens(ids=flat, labels=flat if same else np.concatenate(labels), bounds=bounds)


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Take rows together, as many as are worth the tokenizer's while and no more than fit into memory."""
    chunk, size = list[Row](), 0
    for row in rows:
        chunk.append(row)
        size += len(row.text or row.input_ids or ())
        if len(chunk) == _ROWS_AT_ONCE or size >= _CHARACTERS_AT_ONCE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _ids_and_labels(rows: list[Row], tokenizer: PreTrainedTokenizerFast | None) -> tuple[list[Ids], list[Ids] | None]:
    """Return the rows as ids and labels; no labels where they are the ids themselves."""
    texts = [row.text for row in rows if row.text is not None]
    if not texts:
        ids = [np.array(row.input_ids, dtype=np.int32) for row in rows]
        if all(row.labels == row.input_ids for row in rows):
            return ids, None
        return ids, [np.array(row.labels, dtype=np.int32) for row in rows]
    if tokenizer is None:
        raise DataError(
            "The rows are text, but the run has no tokenizer.",
            "Give rows of input_ids, or a model or dataset that brings a tokenizer.",
        )
    return encode(tokenizer, texts), None


def check_vocabulary(tokens: Tokens, *, vocab_size: int, what: str) -> None:
    """Raise DataError, naming the row and the id, where a token id is not in the vocabulary."""
    for values in (tokens.ids, tokens.labels):
        beyond = np.flatnonzero(values >= vocab_size)
        if len(beyond):
            row = int(np.searchsorted(tokens.bounds, beyond[0], side="right"))
            raise DataError(
                f"Row {row} of the {what} holds token id {values[beyond[0]]}, but the vocabulary ends at "
                f"{vocab_size - 1}.",
                "Tokenize the dataset with the vocabulary of the model it is to train.",
            )
