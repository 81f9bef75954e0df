"""The data of a run: what the plan says of it, and what is refused before anything is trained."""

from pathlib import Path
from typing import Any

import pytest

from core.errors import DataError, InvalidInput
from tests.worker.training.tiny import GPT2, assignment, of, prepared, ragged_rows, run, texts
from worker.training.assignment import Assignment
from worker.training.errors import as_failed
from worker.training.facts import Planned
from worker.training.preparation import prepare


def plan(job: Assignment) -> Planned:
    return of(list(prepare(job)), Planned)[0]


def test_the_plan_counts_what_is_there(tmp_path: Path) -> None:
    rows = [list(range(10)), [1, 2, 3], [5], [7, 8]]
    job = assignment(tmp_path, rows, sequence={"max_length": 4}, training={"batch_size": 2, "epochs": 3})
    told = plan(job)
    assert (told.rows, told.sequences, told.dropped_sequences) == (4, 5, 1)
    assert (told.batches_per_epoch, told.steps, told.tokens_per_epoch) == (3, 9, 3 + 3 + 1 + 2 + 1)
    assert told.vocab_size == 10
    assert 0 <= told.padding < 1
    assert any("shorter than 2 tokens: 1" in warning for warning in told.warnings)


@pytest.mark.parametrize(
    ("rows", "spec", "warning"),
    [
        (ragged_rows(8), {"training": {"epochs": 1, "batch_size": 4, "warmup_steps": 2}}, "warmup of 2 steps"),
        (texts(8), {"tokenizer": {"train": {"vocab_size": 4096}}}, "tokens instead of 4096"),
        (ragged_rows(8), {"validation": {"fraction": 0.2}}, "Rows held out for validation: 2"),
        (ragged_rows(1), {"validation": {"fraction": 0.2}}, "a single row"),
        ([[1, 2], {"input_ids": [3, 4], "labels": [-100, -100]}], {}, "every label in them is ignored: 1"),
        (ragged_rows(60), {"validation": {"fraction": 0.2}}, "Tokens to validate on"),
        ([[1, 2, 4000]] * 20, {}, "The vocabulary of 4,001 tokens is large for data of 40"),
        (ragged_rows(8), {"model": {"config": GPT2 | {"n_embd": 64}}}, "it will learn the text by heart"),
    ],
)
def test_the_plan_warns(tmp_path: Path, rows: list[Any], spec: dict[str, Any], warning: str) -> None:
    assert warning in " ".join(plan(assignment(tmp_path, rows, **spec)).warnings)


def test_a_sound_plan_has_no_warning(tmp_path: Path) -> None:
    job = assignment(tmp_path, ragged_rows(2000), validation={"fraction": 0.1}, training={"warmup_steps": 5})
    assert plan(job).warnings == []


def test_labels_all_ignored_are_counted_and_never_give_a_nan(tmp_path: Path) -> None:
    silent = {"input_ids": [3, 4, 5], "labels": [-100, -100, -100]}
    facts = run(assignment(tmp_path, [[1, 2, 3], silent, silent, [4, 5]], training={"batch_size": 1, "epochs": 1}))
    [told] = of(facts, Planned)
    assert (told.steps, told.tokens_per_epoch) == (2, 3)
    assert "null" not in "".join(fact.line() for fact in facts if fact.fact == "batch" and fact.grad_norm is not None)


def test_a_single_row_is_not_held_out(tmp_path: Path) -> None:
    told = plan(assignment(tmp_path, ragged_rows(1), validation={"fraction": 0.5}))
    assert (told.rows, told.validation_rows) == (1, 0)


def test_the_vocabulary_of_token_ids_covers_labels_and_validation_too(tmp_path: Path) -> None:
    rows = [[1, 2], {"input_ids": [3, 4], "labels": [3, 60]}]
    assert plan(assignment(tmp_path, rows)).vocab_size == 61


@pytest.mark.parametrize(
    ("rows", "spec", "match"),
    [
        (ragged_rows(4), {"tokenizer": {"train": {}}}, "cannot be trained on a dataset of token ids"),
        (ragged_rows(4), {"samples": {"prompts": ["x"]}}, "prompts need a tokenizer"),
        ([[1, 2], [3, 400]], {"tokenizer": "bytes"}, "Row 2 of the dataset holds token id 400"),
        ([[1], [2]], {}, "No row can be trained on: 2 sequences are shorter than 2 tokens"),
        ([{"input_ids": [1, 2], "labels": [1, -100]}], {}, "in 1 every label is ignored"),
        (texts(4), {"sequence": {"min_length": 128, "max_length": 128}}, "shorter than 128"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(
    tmp_path: Path, rows: list[Any], spec: dict[str, Any], match: str
) -> None:
    with pytest.raises(DataError, match=match) as error:
        prepared(prepare(assignment(tmp_path, rows, **spec)))
    assert as_failed(error.value).code == "data"
    assert error.value.hint


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    job = assignment(tmp_path, texts(2))
    job.dataset.path.write_text('{"text": "fine"}\n{"text": 7}\n')
    with pytest.raises(InvalidInput) as error:
        prepared(prepare(job))
    assert "line 2" in error.value.faults[0].msg


def test_another_tokenizer_for_an_earlier_model_is_refused(tmp_path: Path) -> None:
    first = run(assignment(tmp_path, texts(4), training={"epochs": 1}))
    job = assignment(tmp_path, texts(4), tokenizer="bytes", model={"checkpoint": {"job": "j", "epoch": 1}})
    job = job.model_copy(update={"base_model": first[-2].path / "model"})
    with pytest.raises(DataError, match="brings its tokenizer"):
        prepared(prepare(job))


@pytest.mark.parametrize("rows", [[[1, 2], [3, 300]], texts(4)])
def test_ids_beyond_an_earlier_models_vocabulary_or_text_without_one_are_refused(
    tmp_path: Path, rows: list[Any]
) -> None:
    first = run(assignment(tmp_path / "ids", ragged_rows(4), training={"epochs": 1}))
    job = assignment(tmp_path, rows, tokenizer=None, model={"checkpoint": {"job": "j", "epoch": 1}})
    with pytest.raises(DataError, match=r"token id 300|no tokenizer"):
        prepared(prepare(job.model_copy(update={"base_model": first[-2].path / "model"})))
