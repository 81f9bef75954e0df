"""Counting what a dataset comes to, in a confined process: all of a small one, of a large one a sample of its rows."""

import time
from dataclasses import dataclass

import numpy as np

from core.dataset_files import DataFile, Row, read_rows
from core.errors import InvalidInput
from core.job_spec import ValidationFraction
from core.run_estimate import CountRequest
from core.run_plan import Counts
from core.tokens.arrays import Tokens
from core.tokens.batches import IntArray
from core.tokens.counting import Projection, count
from core.tokens.encoding import size_of, tokens_of
from core.tokens.plain_tokenizer import PlainTokenizer, open_tokenizer
from core.tokens.sequences import Sequences, cut, hold_out

# A file of up to so many bytes is counted in full.
EXACT_BYTES = 2 * 2**20
# Of a larger one every n-th row, so that together they hold about so many bytes, and not more characters than that.
SAMPLE_BYTES = 2**20
_MOST_CHARACTERS = 4 * 2**20
_SECONDS_TO_READ = 4.0


@dataclass(frozen=True)
class _Sample:
    """Rows of a file, and how many there are in all; `whole` where these are all of them."""

    rows: list[Row]
    total: int
    whole: bool


def count_rows(request: CountRequest) -> Counts:
    """Count a dataset's sequences as its trainer will, or project them. Raises InvalidInput where there are none."""
    spec, sample = request.spec, _sample(request.dataset)
    other = _sample(request.validation) if request.validation else None
    words = None if request.tokenizer is None else open_tokenizer(request.tokenizer, sample.rows)
    tokens = _tokens(sample, words)
    others = _tokens(other, words) if other else None
    held_out = spec.validation.held_out(sample.total) if isinstance(spec.validation, ValidationFraction) else 0
    # Which rows are held out is known where all of them are here; else a sample stands for both.
    rows, held_out_rows = hold_out(tokens.rows, held_out if sample.whole else 0, seed=spec.training.seed)
    training = _training(request, tokens, rows)
    validation, times = None, 1.0
    if other is not None and others is not None:
        validation, times = cut(others, np.arange(others.rows), spec.sequence), other.total / len(other.rows)
    elif len(held_out_rows):
        validation = cut(tokens, held_out_rows, spec.sequence)
    elif held_out:
        validation, times = training, held_out / len(sample.rows)
    exact = sample.whole and (other is None or other.whole)
    return Counts(
        exact=exact,
        sample_rows=None if exact else len(sample.rows),
        vocab_size=_vocab_size(request, words, tokens, others),
        rows=sample.total - held_out,
        validation_rows=other.total if other else held_out,
        skipped_rows=request.dataset.known.skipped_rows if request.dataset.known else 0,
        warnings=_warnings(request, words),
        **count(
            training,
            validation,
            spec.training,
            None if exact else Projection(training=(sample.total - held_out) / len(rows), validation=times),
        ),
    )


def _sample(file: DataFile) -> _Sample:
    """Read a small file whole, and of a large one rows from all over it, or as far as one gets in a few seconds."""
    assert file.known, "an uploaded file was looked through"
    one_in = 1 if file.known.bytes <= EXACT_BYTES else -(-file.known.bytes // SAMPLE_BYTES)
    rows, size, until, whole = list[Row](), 0, time.monotonic() + _SECONDS_TO_READ, one_in == 1
    for number, row in enumerate(read_rows(file)):
        if number % one_in == 0:
            rows.append(row)
            size += size_of(row)
        if size > _MOST_CHARACTERS or time.monotonic() > until:
            whole = whole and len(rows) == file.known.rows
            break
    return _Sample(rows, file.known.rows, whole)


def _tokens(sample: _Sample, words: PlainTokenizer | None) -> Tokens:
    return tokens_of(sample.rows, None if sample.rows[0].input_ids is not None else words, of="the dataset")


def _training(request: CountRequest, tokens: Tokens, rows: IntArray) -> Sequences:
    wanted = request.spec.sequence
    training = cut(tokens, rows, wanted)
    if not len(training):
        raise InvalidInput(
            f"No row can be trained on: of {len(rows):,} rows, {training.dropped:,} sequences are shorter than "
            f"sequence.min_length ({wanted.min_length}), and {training.silent:,} carry no loss."
        )
    return training


def _vocab_size(request: CountRequest, words: PlainTokenizer | None, *read: Tokens | None) -> int:
    if request.vocab_size is not None:
        return request.vocab_size
    if words is not None:
        return words.backend_tokenizer.get_vocab_size()
    return 1 + max(int(max(tokens.ids.max(), tokens.labels.max())) for tokens in read if tokens is not None)


def _warnings(request: CountRequest, words: PlainTokenizer | None) -> list[str]:
    if words is None or request.tokenizer is None or request.tokenizer.learn is None:
        return []
    asked, size = request.tokenizer.learn.vocab_size, words.backend_tokenizer.get_vocab_size()
    return [f"The tokenizer has {size} tokens instead of {asked}: the dataset holds no more."] if size < asked else []
