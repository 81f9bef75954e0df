"""From rows to token ids: the pieces of a row that are tokenized by themselves, and which of them carry loss."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from core.dataset_files import IGNORED_LABEL, Row
from core.tokens import chat
from core.tokens.arrays import Block, Tokens
from core.tokens.vocabulary import CHARACTERS_AT_ONCE, Words, between_specials, encode, parts

_PIECES_AT_ONCE = 1024
_IDS_AT_ONCE = 2**18


class Piece(NamedTuple):
    """A text that is tokenized by itself. One that `continues` is not the first of its row.

    Behind the last piece of a row comes the end of text, unless the piece `brings_end` itself.
    """

    text: str
    carries_loss: bool = True
    continues: bool = False
    ends_row: bool = True
    brings_end: bool = False


def pieces(row: Row, words: Words, *, where: str) -> Iterator[Piece]:
    """Cut a row of text, a completion or a conversation into its pieces, none too long to be encoded at once.

    `where` names the row in the DataError that is raised where a conversation cannot be rendered.
    """
    if row.messages is not None:
        spans = chat.spans(words, row.messages, where=where)
    elif row.prompt is not None and row.completion is not None:
        # Not tokenized together: when the model is used, the prompt is encoded before there is a completion.
        spans = [(row.prompt, False), (row.completion, True)]
    else:
        spans = [(row.text or "", True)]
    cut = [(part, carries_loss) for text, carries_loss in spans for part in parts(text)]
    # Templates put a newline behind the end of what the assistant says.
    last = spans[-1][0] if row.messages is None else spans[-1][0].rstrip()
    brings_end = last.endswith(str(words.eos_token))
    for place, (text, carries_loss) in enumerate(cut):
        ends_row = place == len(cut) - 1
        yield Piece(text, carries_loss, place > 0, ends_row, ends_row and brings_end)


def texts_to_learn(row: Row, words: Words, special_tokens: list[str], *, where: str) -> list[str]:
    """Return what a tokenizer is learnt from: all texts of a row, conversations with the marks of their turns.

    `words` only writes the conversations. Special tokens are left out: they are tokens already, not made of others.
    """
    return [text for piece in pieces(row, words, where=where) for text in between_specials(piece.text, special_tokens)]


def chunks_of_pieces(rows: Iterable[Row], words: Words, *, of: str) -> Iterator[list[Piece]]:
    """Take pieces together, as many as are worth the tokenizer's while and no more than fit into memory.

    `of` names the file in the errors that `pieces` raises.
    """
    chunk, size = list[Piece](), 0
    for number, row in enumerate(rows, 1):
        for piece in pieces(row, words, where=f"Row {number} of {of}"):
            chunk.append(piece)
            size += len(piece.text)
            if len(chunk) == _PIECES_AT_ONCE or size >= CHARACTERS_AT_ONCE:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def encoded(words: Words, chunk: list[Piece]) -> Block:
    """Return the tokens of pieces, with the end of text behind each row."""
    ids_of = encode(words, [piece.text for piece in chunk], [piece.continues for piece in chunk])
    for piece, ids in zip(chunk, ids_of, strict=True):
        if piece.ends_row and not piece.brings_end:
            ids.append(words.eos_token_id)
    lengths = np.array([len(ids) for ids in ids_of])
    flat = np.fromiter(chain.from_iterable(ids_of), dtype=np.int32, count=int(lengths.sum()))
    labels = None
    if not all(piece.carries_loss for piece in chunk):
        carries_loss = np.repeat([piece.carries_loss for piece in chunk], lengths)
        labels = np.where(carries_loss, flat, np.int32(IGNORED_LABEL))
    ends = np.cumsum(lengths)[[piece.ends_row for piece in chunk]]
    return Block(ids=flat, labels=labels, ends=ends)


def blocks_of_ids(rows: Iterable[Row]) -> Iterator[Block]:
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


def tokens_of(rows: Sequence[Row], words: Words | None, *, of: str) -> Tokens:
    """Return the tokens of rows in memory; without `words` the rows are token ids. Raises what `pieces` does."""
    if words is None:
        blocks = list(blocks_of_ids(rows))
    else:
        blocks = [encoded(words, chunk) for chunk in chunks_of_pieces(rows, words, of=of)]
    ids = labels = np.concatenate([block.ids for block in blocks])
    if any(block.labels is not None for block in blocks):
        labels = np.concatenate([block.ids if block.labels is None else block.labels for block in blocks])
    before = np.cumsum([0, *(len(block.ids) for block in blocks)])
    ends = [block.ends + start for block, start in zip(blocks, before[:-1], strict=True)]
    return Tokens(ids=ids, labels=labels, bounds=np.concatenate(([0], *ends)))


def size_of(row: Row) -> int:
    """Return how much a row holds, in characters or token ids."""
    if row.messages is not None:
        return sum(len(message["content"]) for message in row.messages)
    return sum(map(len, (row.text or "", row.input_ids or (), row.prompt or "", row.completion or "")))
