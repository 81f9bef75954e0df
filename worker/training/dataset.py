"""From a dataset's file to what the model sees: rows become token ids and labels, long rows become sequences.

Everything is held in a few flat numpy arrays, 4 bytes a token, never in a Python object per row.
"""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from core.dataset_files import IGNORED_LABEL, DataFile, Row, read_rows
from core.job_spec import Sequence
from worker.training.batches import IntArray
from worker.training.errors import DataError
from worker.training.facts import Preparing
from worker.training.randomness import derive
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


@dataclass(frozen=True)
class Sequences:
    """What the model sees, as views into the rows: sequence s is `ids[starts[s] : starts[s] + lengths[s]]`.

    `loss_tokens[s]` is how many of its labels carry loss, at least 1: the first token has nothing to be predicted from.
    `dropped` were shorter than `min_length`; `silent` carried no loss at all.
    """

    ids: Ids
    labels: Ids
    starts: IntArray
    lengths: IntArray
    loss_tokens: IntArray
    dropped: int
    silent: int

    def __len__(self) -> int:
        return len(self.starts)


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


def hold_out(rows: int, count: int, *, seed: int) -> tuple[IntArray, IntArray]:
    """Split row numbers into those to train on and `count` to validate on, by the seed."""
    order = np.random.default_rng(derive(seed, "hold out")).permutation(rows)
    return np.sort(order[count:]), np.sort(order[:count])


def cut(tokens: Tokens, rows: IntArray, sequence: Sequence) -> Sequences:
    """Cut the given rows into sequences of at most `max_length` tokens that start `stride` tokens apart.

    The last sequence of a row is the first that reaches its end. Sequences shorter than `min_length`, and those whose
    labels are all ignored (they would cost time and teach nothing), are left out and counted.
    """
    max_length, stride = sequence.max_length, sequence.stride or sequence.max_length
    row_starts, row_ends = tokens.bounds[rows], tokens.bounds[rows + 1]
    beyond_first = np.maximum(row_ends - row_starts - max_length, 0)
    counts = 1 + -(-beyond_first // stride)
    first = np.cumsum(counts) - counts  # the number of each row's first sequence
    nth = np.arange(counts.sum()) - np.repeat(first, counts)
    starts = np.repeat(row_starts, counts) + nth * stride
    lengths = np.minimum(np.repeat(row_ends, counts) - starts, max_length)

    long_enough = lengths >= sequence.min_length
    starts, lengths = starts[long_enough], lengths[long_enough]
    loss_tokens = _loss_tokens(tokens, starts, lengths)
    heard = loss_tokens > 0
    return Sequences(
        ids=tokens.ids,
        labels=tokens.labels,
        starts=starts[heard],
        lengths=lengths[heard],
        loss_tokens=loss_tokens[heard],
        dropped=int((~long_enough).sum()),
        silent=int((~heard).sum()),
    )


def _loss_tokens(tokens: Tokens, starts: IntArray, lengths: IntArray) -> IntArray:
    if tokens.labels is tokens.ids:
        return lengths - 1
    before = np.concatenate(([0], np.cumsum(tokens.labels != IGNORED_LABEL, dtype=np.int64)))
    counts: IntArray = before[starts + lengths] - before[starts + 1]
    return counts
