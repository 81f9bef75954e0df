"""From rows to tokens: encoded in chunks on every core, while others are read and written.

The tokenizer works outside of Python's lock; reading, cutting and writing do not, and cost a fifth of its time.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import chain

import numpy as np
from transformers import PreTrainedTokenizerFast

from core.dataset_files import IGNORED_LABEL, DataFile, Known, Row, holds_ids
from worker.training.dataset import Block, TokenWriter
from worker.training.errors import DataError
from worker.training.facts import Preparing
from worker.training.rows import Piece, Progress, pieces, rows_of
from worker.training.tokenizer import CHARACTERS_AT_ONCE, encode

_PIECES_AT_ONCE = 1024
_IDS_AT_ONCE = 2**18
# Enough that no core waits for a chunk, few enough that all their tokens are small beside the model.
_CHUNKS_AT_ONCE = 8
_SECONDS_BETWEEN_LOOKS = 0.1


def tokenize(
    file: DataFile, known: Known, tokenizer: PreTrainedTokenizerFast | None, writer: TokenWriter
) -> Generator[Preparing, None, None]:
    """Read a file into tokens, telling twice a second how far it is, and at the end.

    Raises DataError for text where there is no tokenizer, or one without an end of text, for a conversation that its
    chat template refuses, and for a file that is damaged; InvalidInput for a row that cannot be read.
    """
    progress = Progress("tokens")
    if holds_ids(known.columns):
        blocks: Iterator[Block | None] = _blocks_of_ids(rows_of(file))
    elif tokenizer is None:
        raise DataError(
            "The rows are text, but the run has no tokenizer.",
            "Give rows of input_ids, or a model or dataset that brings a tokenizer.",
        )
    elif tokenizer.eos_token_id is None:
        raise DataError(
            "The tokenizer knows no end of text, which must stand behind every row.",
            "Use a model whose tokenizer_config.json names an eos_token.",
        )
    else:
        blocks = _blocks_of_text(file, tokenizer)
    for block in blocks:
        if block is not None:
            writer.append(block)
        yield from progress.tell(writer.rows, known.rows)
    yield Preparing(phase="tokens", done=writer.rows, total=known.rows)


def _blocks_of_ids(rows: Iterable[Row]) -> Iterator[Block]:
    """Take rows of token ids as they are, as many together as are worth a write."""
    chunk, size = list[Row](), 0
    for row in rows:
        chunk.append(row)
        size += len(row.input_ids or ())
        if size >= _IDS_AT_ONCE:
            yield _block_of_ids(chunk)
            chunk, size = [], 0
    if chunk:
        yield _block_of_ids(chunk)


def _block_of_ids(rows: list[Row]) -> Block:
    ids = [np.array(row.input_ids, dtype=np.int32) for row in rows]
    labels = None
    if any(row.labels != row.input_ids for row in rows):
        labels = np.concatenate([np.array(row.labels, dtype=np.int32) for row in rows])
    return Block(ids=np.concatenate(ids), labels=labels, ends=np.cumsum([len(row) for row in ids], dtype=np.int64))


def _blocks_of_text(file: DataFile, tokenizer: PreTrainedTokenizerFast) -> Iterator[Block | None]:
    """Encode rows, several chunks at once, and yield their blocks in order; None where one takes its time."""
    pool = ThreadPoolExecutor(_CHUNKS_AT_ONCE, thread_name_prefix="encode")
    under_way = deque[Future[Block]]()
    try:
        for chunk in _chunks(file, tokenizer):
            under_way.append(pool.submit(_encoded, tokenizer, chunk))
            if len(under_way) == _CHUNKS_AT_ONCE:
                yield from _patiently(under_way.popleft())
        while under_way:
            yield from _patiently(under_way.popleft())
    finally:
        # Nobody waits here: a stop order, or an error, may have come first.
        pool.shutdown(wait=False, cancel_futures=True)


def _patiently(future: Future[Block]) -> Iterator[Block | None]:
    while wait([future], timeout=_SECONDS_BETWEEN_LOOKS).not_done:
        yield None
    yield future.result()


def _chunks(file: DataFile, tokenizer: PreTrainedTokenizerFast) -> Iterator[list[Piece]]:
    """Take pieces together, as many as are worth the tokenizer's while and no more than fit into memory."""
    chunk, size = list[Piece](), 0
    for number, row in enumerate(rows_of(file), 1):
        for piece in pieces(row, tokenizer, where=f"Row {number} of {file.path.name}"):
            chunk.append(piece)
            size += len(piece.text)
            if len(chunk) == _PIECES_AT_ONCE or size >= CHARACTERS_AT_ONCE:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def _encoded(tokenizer: PreTrainedTokenizerFast, chunk: list[Piece]) -> Block:
    encoded = encode(tokenizer, [piece.text for piece in chunk], [piece.continues for piece in chunk])
    for piece, ids in zip(chunk, encoded, strict=True):
        if piece.ends_row and not piece.brings_end:
            ids.append(tokenizer.eos_token_id)
    lengths = np.array([len(ids) for ids in encoded])
    flat = np.fromiter(chain.from_iterable(encoded), dtype=np.int32, count=int(lengths.sum()))
    labels = None
    if not all(piece.carries_loss for piece in chunk):
        carries_loss = np.repeat([piece.carries_loss for piece in chunk], lengths)
        labels = np.where(carries_loss, flat, np.int32(IGNORED_LABEL))
    ends = np.cumsum(lengths)[[piece.ends_row for piece in chunk]]
    return Block(ids=flat, labels=labels, ends=ends)
