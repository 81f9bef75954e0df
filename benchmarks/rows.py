"""Rows of token ids of real text: Python's documentation, as short ragged documents or as full-length sequences."""

from itertools import chain, cycle, islice
from pydoc_data.topics import topics
from random import Random
from typing import Literal

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from benchmarks.shapes import MAX_LENGTH, VOCAB_SIZE

Shape = Literal["ragged", "full"]
END_OF_TEXT = "<|endoftext|>"


def documents(text: str) -> list[str]:
    """Cut a text at its blank lines."""
    return [block for block in text.split("\n\n") if block.strip()]


def learn_tokenizer(texts: list[str]) -> Tokenizer:
    """Learn a byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def make_rows(shape: Shape, count: int, *, seed: int = 0) -> list[list[int]]:
    """Return `count` rows of at most MAX_LENGTH ids; where the text holds fewer, rows come again.

    Ragged: a paragraph each, with its end of text, the long ones cut. Full: the text without its seams, cut.
    """
    texts = documents("\n\n".join(topics.values()))
    tokenizer = learn_tokenizer(texts)
    end = tokenizer.token_to_id(END_OF_TEXT)
    assert end is not None
    paragraphs = [[*encoding.ids, end] for encoding in tokenizer.encode_batch(texts)]
    if shape == "full":
        pieces = _cut(list(chain.from_iterable(paragraphs)))
        rows = [piece for piece in pieces if len(piece) == MAX_LENGTH]
    else:
        rows = [piece for paragraph in paragraphs for piece in _cut(paragraph) if len(piece) > 1]
    Random(seed).shuffle(rows)
    rows = list(islice(cycle(rows), count))
    # Of rows of ids the vocabulary is told by the highest one. What a row starts with is predicted by nobody.
    rows[0] = [VOCAB_SIZE - 1, *rows[0][1:]]
    return rows


def _cut(ids: list[int]) -> list[list[int]]:
    return [ids[start : start + MAX_LENGTH] for start in range(0, len(ids), MAX_LENGTH)]
