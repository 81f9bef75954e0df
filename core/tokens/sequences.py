"""From tokens to what the model sees: which rows are trained on, and how long rows become sequences."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.job_spec import Sequence
from core.tokens.arrays import Ids, Tokens, count_loss
from core.tokens.batches import IntArray
from core.tokens.seeds import derive

# A gigabyte of short texts has ten million rows, and what is computed of each takes ten numbers: not of all at once.
_BLOCK_ROWS = 2**18


@dataclass(frozen=True)
class Pieces:
    """What packed sequences are made of: piece p is `counts[p]` inputs from `ids[starts[p]]` on, all of one document.

    Sequence s holds the pieces from `first[s]` to before `first[s + 1]`.
    """

    starts: IntArray
    counts: IntArray
    first: IntArray


@dataclass(frozen=True)
class Sequences:
    """What the model sees, as views into the rows: sequence s is `ids[starts[s] : starts[s] + lengths[s]]`.

    It is read without its last token, and predicts all but its first: `lengths[s] - 1` positions. `loss_tokens[s]` is
    how many of these carry loss, at least 1. Where `pieces` are given a sequence is made of them instead, with as many
    positions. `dropped` were shorter than `min_length`; `silent` carried no loss at all.
    """

    ids: Ids
    labels: Ids
    starts: IntArray
    lengths: IntArray
    loss_tokens: IntArray
    dropped: int
    silent: int
    pieces: Pieces | None = None

    def __len__(self) -> int:
        return len(self.starts)


def hold_out(rows: int, count: int, *, seed: int) -> tuple[IntArray, IntArray]:
    """Split row numbers into those to train on and `count` to validate on, by the seed."""
    order = np.random.default_rng(derive(seed, "hold out")).permutation(rows)
    return np.sort(order[count:]), np.sort(order[:count])


def cut(tokens: Tokens, rows: IntArray, sequence: Sequence) -> Sequences:
    """Cut the given rows into sequences, as the spec's `sequence.mode` says.

    What is shorter than `min_length`, and what carries no loss at all (it would cost time and teach nothing), is left
    out and counted.
    """
    return _packed(tokens, rows, sequence) if sequence.mode == "packed" else _documents(tokens, rows, sequence)


def windows_of_rows(tokens: Tokens, rows: IntArray, sequence: Sequence) -> tuple[IntArray, IntArray]:
    """Return the starts and the lengths of all sequences that documents are cut into, whatever is left out later."""
    none = np.zeros(0, dtype=np.int64)
    blocks = [(none, none), *(_windows_of_block(tokens, block, sequence) for block in _blocks(rows))]
    starts, lengths = zip(*blocks, strict=True)
    return np.concatenate(starts), np.concatenate(lengths)


def _windows_of_block(tokens: Tokens, rows: IntArray, sequence: Sequence) -> tuple[IntArray, IntArray]:
    max_length, stride = sequence.max_length, sequence.stride or sequence.max_length
    row_starts, row_ends = tokens.bounds[rows], tokens.bounds[rows + 1]
    beyond_first = np.maximum(row_ends - row_starts - max_length, 0)
    counts = 1 + -(-beyond_first // stride)
    first = np.cumsum(counts) - counts  # the number of each row's first sequence
    nth = np.arange(counts.sum()) - np.repeat(first, counts)
    starts = np.repeat(row_starts, counts) + nth * stride
    return starts, np.minimum(np.repeat(row_ends, counts) - starts, max_length)


def _documents(tokens: Tokens, rows: IntArray, sequence: Sequence) -> Sequences:
    """Cut rows into sequences of at most `max_length` tokens that start `stride` tokens apart.

    The last sequence of a row is the first that reaches its end.
    """
    starts, lengths = windows_of_rows(tokens, rows, sequence)
    long_enough = lengths >= sequence.min_length
    starts, lengths = _where(long_enough, starts, lengths)
    loss_tokens = _loss_tokens(tokens, starts, lengths)
    heard = loss_tokens > 0
    starts, lengths, loss_tokens = _where(heard, starts, lengths, loss_tokens)
    return Sequences(
        ids=tokens.ids,
        labels=tokens.labels,
        starts=starts,
        lengths=lengths,
        loss_tokens=loss_tokens,
        dropped=int((~long_enough).sum()),
        silent=int((~heard).sum()),
    )


def _packed(tokens: Tokens, rows: IntArray, sequence: Sequence) -> Sequences:
    """Join rows end to end and cut them into sequences of `max_length - 1` positions; only the last may be shorter.

    A row that reaches over a cut goes on in the next sequence, from the token that it stopped at: no label is lost.
    """
    width = sequence.max_length - 1
    most = -(-len(tokens.ids) // width)
    # Of each sequence: how many pieces it has, and how many tokens that carry loss.
    pieces, loss_tokens = np.zeros(most, dtype=np.int64), np.zeros(most, dtype=np.int64)
    starts, counts = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    total = dropped = silent = 0
    for block in _blocks(rows):
        row_starts, lengths = tokens.bounds[block], tokens.bounds[block + 1] - tokens.bounds[block]
        long_enough = lengths >= sequence.min_length
        row_starts, lengths = _where(long_enough, row_starts, lengths)
        heard = _loss_tokens(tokens, row_starts, lengths) > 0
        row_starts, lengths = _where(heard, row_starts, lengths)
        dropped += int((~long_enough).sum())
        silent += int((~heard).sum())
        if not len(lengths):
            continue
        piece_starts, piece_counts, owner = _pieces_of_block(row_starts, lengths - 1, begin=total, width=width)
        total += int((lengths - 1).sum())
        here = slice(owner[0], owner[-1] + 1)
        pieces[here] += np.bincount(owner - owner[0])
        of_pieces = _loss_tokens(tokens, piece_starts, piece_counts + 1)
        loss_tokens[here] += np.bincount(owner - owner[0], weights=of_pieces).astype(np.int64)
        starts.append(piece_starts)
        counts.append(piece_counts)
    whole = -(-total // width)
    pieces, loss_tokens = pieces[:whole], loss_tokens[:whole]
    kept = loss_tokens > 0  # a long prompt may fill a whole sequence
    inside = np.repeat(kept, pieces)
    piece_starts, piece_counts = _where(inside, np.concatenate(starts), np.concatenate(counts))
    first = np.concatenate(([0], np.cumsum(pieces[kept])))
    lengths = np.minimum(width, total - width * np.arange(whole)) + 1
    return Sequences(
        ids=tokens.ids,
        labels=tokens.labels,
        starts=piece_starts[first[:-1]],
        lengths=lengths[kept],
        loss_tokens=loss_tokens[kept],
        dropped=dropped,
        silent=silent + int((~kept).sum()),
        pieces=Pieces(starts=piece_starts, counts=piece_counts, first=first),
    )


def _pieces_of_block(
    row_starts: IntArray, positions: IntArray, *, begin: int, width: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Cut rows of so many positions, which come behind `begin` others, at every multiple of `width`.

    Returns the start of each piece, how many positions it has, and the number of the sequence that it belongs to.
    """
    ends = begin + np.cumsum(positions)
    begins = ends - positions
    cuts = np.union1d(begins, np.arange(-(-begin // width) * width, ends[-1], width))
    row = np.searchsorted(begins, cuts, side="right") - 1
    return row_starts[row] + cuts - begins[row], np.diff(cuts, append=ends[-1]), cuts // width


def _blocks(rows: IntArray) -> Iterator[IntArray]:
    return (rows[begin : begin + _BLOCK_ROWS] for begin in range(0, len(rows), _BLOCK_ROWS))


def _where(kept: npt.NDArray[np.bool_], *arrays: IntArray) -> tuple[IntArray, ...]:
    """Return the elements that are kept: the arrays themselves, and no copy, where all are."""
    return arrays if kept.all() else tuple(array[kept] for array in arrays)


def _loss_tokens(tokens: Tokens, starts: IntArray, lengths: IntArray) -> IntArray:
    """Return how many labels of each stretch carry loss; its first token has nothing to be predicted from."""
    if tokens.labels is tokens.ids:
        return lengths - 1
    return count_loss(tokens.labels, starts + 1, starts + lengths)
