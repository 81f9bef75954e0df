"""The data of a run: which tokenizer reads it, what is held out, and the sequences that come of it."""

from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from transformers import PreTrainedTokenizerFast

from core.dataset_files import DataFile, Known, holds_ids
from core.errors import DataError
from core.job_spec import (
    TokenizerTraining,
    TrainedTokenizer,
    UploadedTokenizer,
    ValidationDataset,
    ValidationFraction,
)
from core.tokens import chat
from core.tokens.arrays import Tokens
from core.tokens.batches import IntArray
from core.tokens.sequences import Sequences, cut, hold_out
from core.tokens.vocabulary import of_bytes
from worker.training import tokenizer
from worker.training.assignment import Assignment
from worker.training.cached import Tokenized, learnt_from_one_in, learnt_tokenizer, tokenized
from worker.training.dataset import check_vocabulary
from worker.training.facts import Preparing
from worker.training.rows import look_through
from worker.training.token_cache import TokenCache


@dataclass(frozen=True)
class Corpus:
    """What a run trains on. `rows` are those trained on, `warnings` what the user should know of them.

    `content` names the dataset's tokens and labels, row by row: the sha256 taken when they were written.
    """

    tokenizer: PreTrainedTokenizerFast | None
    vocab_size: int
    training: Sequences
    validation: Sequences | None
    rows: int
    validation_rows: int
    skipped_rows: int
    content: str
    warnings: list[str] = field(default_factory=list)


def gather(assignment: Assignment, *, vocab_size: int | None) -> Generator[Preparing, None, Corpus]:
    """Read the datasets. `vocab_size` is that of the model where there is one already; else it follows from the data.

    Raises DataError or InvalidInput where the data, or what the spec asks of it, cannot be trained on.
    """
    with ExitStack() as stack:
        # Without a folder for all jobs, one that goes as soon as its files are mapped: they stay readable.
        folder = assignment.cache_dir or Path(stack.enter_context(TemporaryDirectory(prefix="epochd-tokens-")))
        cache = TokenCache(folder, max_bytes=assignment.cache_max_bytes)
        return (yield from _gather(assignment, cache, vocab_size))


def _gather(assignment: Assignment, cache: TokenCache, vocab_size: int | None) -> Generator[Preparing, None, Corpus]:
    spec, warnings = assignment.spec, list[str]()
    other = _validation_file(assignment)
    known = yield from look_through(assignment.dataset)
    other_known = (yield from look_through(other)) if other else None
    words = yield from _tokenizer(assignment, known, cache, warnings)
    if spec.samples.prompts and words is None:
        raise DataError(
            "samples.prompts need a tokenizer, and a dataset of token ids has none.",
            "Leave samples.prompts empty, or give rows of text.",
        )
    if words is not None and any("messages" in file.columns for file in (known, other_known) if file):
        chat.ensure_template(words)
    data = yield from tokenized(assignment.dataset, known, words, cache)
    held_out = (yield from tokenized(other, other_known, words, cache)) if other and other_known else None
    vocab_size = _check_vocabulary(data, held_out, vocab_size, words)
    rows, validation_rows = _split(assignment, data.tokens, held_out)
    return Corpus(
        tokenizer=words,
        vocab_size=vocab_size,
        training=_training_sequences(assignment, data.tokens, rows, warnings),
        validation=_validation_sequences(assignment, (held_out or data).tokens, validation_rows, warnings),
        rows=len(rows),
        validation_rows=len(validation_rows),
        skipped_rows=known.skipped_rows,
        content=data.sha256,
        warnings=warnings,
    )


def _validation_file(assignment: Assignment) -> DataFile | None:
    """Return the file of the validation dataset; None where the spec names none."""
    if not isinstance(assignment.spec.validation, ValidationDataset):
        return None
    if assignment.validation_dataset is None:
        raise DataError("The spec names a validation dataset, but none was handed over.", "Hand its path over.")
    return assignment.validation_dataset


def _tokenizer(
    assignment: Assignment, known: Known, cache: TokenCache, warnings: list[str]
) -> Generator[Preparing, None, PreTrainedTokenizerFast | None]:
    """Load, make or learn the tokenizer that the spec asks for; None for rows of token ids without one."""
    wanted, max_length = assignment.spec.tokenizer, assignment.spec.sequence.max_length
    if assignment.base_model is not None and wanted is not None:
        raise DataError(
            "The model comes from a checkpoint and brings its tokenizer: another one would not fit its vocabulary.",
            "Leave tokenizer out of the spec.",
        )
    if assignment.resume_from is not None:
        return tokenizer.load(assignment.resume_from / "model")
    if assignment.base_model is not None:
        return tokenizer.load(assignment.base_model)
    if wanted == "bytes":
        return tokenizer.for_transformers(of_bytes(), max_length=max_length)
    if isinstance(wanted, UploadedTokenizer):
        if assignment.tokenizer is None:
            raise DataError("The spec names an uploaded tokenizer, but none was handed over.", "Hand its path over.")
        given = assignment.tokenizer
        return tokenizer.load_uploaded(given.path, max_length=max_length, end_of_text=given.end_of_text)
    if holds_ids(known.columns):
        if wanted is not None:
            raise DataError(
                "A tokenizer cannot be trained on a dataset of token ids.",
                "Leave tokenizer out of the spec, or give rows of text.",
            )
        return None
    asked = wanted.train if isinstance(wanted, TrainedTokenizer) else TokenizerTraining()
    learnt = yield from learnt_tokenizer(assignment.dataset, known, asked, cache)
    if (one_in := learnt_from_one_in(known)) > 1:
        warnings.append(f"The dataset is large: its tokenizer is learnt from one row in {one_in}.")
    if learnt.get_vocab_size() < asked.vocab_size:
        warnings.append(
            f"The tokenizer has {learnt.get_vocab_size()} tokens instead of {asked.vocab_size}: "
            "the dataset holds no more."
        )
    return tokenizer.for_transformers(learnt, max_length=max_length)


def _check_vocabulary(
    data: Tokenized, held_out: Tokenized | None, vocab_size: int | None, words: PreTrainedTokenizerFast | None
) -> int:
    """Return the vocabulary's size, the model's where it has one. Raises DataError for a token id beyond it."""
    both = [data, held_out] if held_out else [data]
    if vocab_size is None:
        vocab_size = len(words) if words else 1 + max(part.largest_id for part in both)
    for part, what in zip(both, ("dataset", "validation dataset"), strict=False):
        check_vocabulary(part.tokens, largest_id=part.largest_id, vocab_size=vocab_size, what=what)
    return vocab_size


def _split(assignment: Assignment, tokens: Tokens, held_out: Tokenized | None) -> tuple[IntArray, IntArray]:
    """Return the rows to train on, and those (of the validation dataset, or of the dataset itself) to validate on."""
    validation, everything = assignment.spec.validation, np.arange(tokens.rows)
    if held_out is not None:
        return everything, np.arange(held_out.tokens.rows)
    if not isinstance(validation, ValidationFraction):
        return everything, everything[:0]
    seed = assignment.spec.training.seed
    return hold_out(tokens.rows, validation.held_out(tokens.rows), seed=seed)


def _training_sequences(assignment: Assignment, tokens: Tokens, rows: IntArray, warnings: list[str]) -> Sequences:
    minimum = assignment.spec.sequence.min_length
    sequences = cut(tokens, rows, assignment.spec.sequence)
    if not len(sequences):
        raise DataError(
            f"No row can be trained on: {sequences.dropped} sequences are shorter than {minimum} tokens, "
            f"and in {sequences.silent} every label is ignored.",
            "Give longer rows, lower sequence.min_length, or give labels that are not all -100.",
        )
    if sequences.dropped:
        warnings.append(f"Sequences left out because they are shorter than {minimum} tokens: {sequences.dropped}.")
    if sequences.silent:
        warnings.append(f"Sequences left out because every label in them is ignored: {sequences.silent}.")
    return sequences


def _validation_sequences(
    assignment: Assignment, tokens: Tokens, rows: IntArray, warnings: list[str]
) -> Sequences | None:
    if not len(rows):
        return None
    sequences = cut(tokens, rows, assignment.spec.sequence)
    if not len(sequences):
        warnings.append("No row held out for validation carries a loss, so there is no validation loss.")
        return None
    return sequences
