"""The plan before a run is the trainer's own, where a dataset is small, and near it where only a sample was counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.dataset_files import DataFile
from core.errors import InvalidInput
from core.job_spec import JobSpec, TokenizerTraining
from core.model_spec import NewModel
from core.run_estimate import CountRequest
from core.run_plan import Counts
from core.tokenizer_source import TokenizerSource
from core.tokens import estimating
from core.tokens.estimating import count_rows
from tests.chinese import CHAPTERS
from tests.worker.training.tiny import GPT2, assignment, of, prepared, ragged_rows, texts, write_rows
from worker.training.assignment import Assignment
from worker.training.facts import Planned
from worker.training.preparation import prepare
from worker.training.rows import look_through

_BYTES, _LEARN = TokenizerSource(), TokenizerSource(learn=TokenizerTraining(vocab_size=400))
_COMPLETIONS = [{"prompt": text, "completion": f" {text[::-1]}"} for text in texts(40)]
_CHATS = [
    {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text.upper()}]}
    for text in texts(40)
]
_SILENT = {"input_ids": [1, 2, 3], "labels": [-100, -100, -100]}


def _known(file: DataFile) -> DataFile:
    return file.model_copy(update={"known": prepared(look_through(file))})


def _request(job: Assignment, source: TokenizerSource | None) -> CountRequest:
    return CountRequest(
        spec=job.spec,
        dataset=_known(job.dataset),
        validation=_known(job.validation_dataset) if job.validation_dataset else None,
        tokenizer=source,
        vocab_size=None,
    )


def _fields(planned: Planned, counts: Counts) -> tuple[dict[str, Any], dict[str, Any]]:
    names = Planned.model_fields.keys() & Counts.model_fields.keys() - {"warnings"}
    return planned.model_dump(include=names), counts.model_dump(include=names)


@pytest.mark.parametrize(
    ("rows", "spec", "source"),
    [
        (texts(200), {}, _BYTES),
        (texts(200), {"tokenizer": {"train": {"vocab_size": 400}}}, _LEARN),
        (CHAPTERS, {"tokenizer": {"train": {"vocab_size": 400}}, "sequence": {"max_length": 16, "stride": 5}}, _LEARN),
        (texts(200), {"sequence": {"max_length": 24, "stride": 7, "min_length": 9}}, _BYTES),
        (texts(200), {"sequence": {"mode": "packed", "max_length": 32}}, _BYTES),
        ([*ragged_rows(150), _SILENT, [7]], {}, None),
        (_COMPLETIONS, {"tokenizer": "bytes", "sequence": {"max_length": 40}}, _BYTES),
        (_CHATS, {"tokenizer": {"train": {"vocab_size": 400}}}, _LEARN),
    ],
)
@pytest.mark.parametrize("validation", [None, {"fraction": 0.1}])
def test_a_small_dataset_is_counted_as_its_trainer_counts(
    tmp_path: Path, rows: list[Any], spec: dict[str, Any], source: TokenizerSource | None, validation: Any
) -> None:
    training = {"batch_size": 5, "gradient_accumulation_steps": 3, "seed": 4}
    job = assignment(tmp_path, rows, **{"validation": validation, "training": training} | spec)
    planned = of(list(prepare(job)), Planned)[0]
    counts = count_rows(_request(job, source))
    assert counts.exact
    told, counted = _fields(planned, counts)
    assert counted == told


def test_a_validation_dataset_is_counted_too(tmp_path: Path) -> None:
    job = assignment(tmp_path, texts(50), validation={"dataset": "ds_2"})
    job = job.model_copy(update={"validation_dataset": write_rows(tmp_path / "other.jsonl", texts(9, seed=3))})
    told, counted = _fields(of(list(prepare(job)), Planned)[0], count_rows(_request(job, _BYTES)))
    assert counted == told
    assert counted["validation_sequences"] == 9


@pytest.mark.parametrize("sequence", [{"max_length": 64, "stride": 40}, {"mode": "packed", "max_length": 64}])
def test_of_a_large_dataset_a_sample_tells_nearly_as_much(
    tmp_path: Path, sequence: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = texts(3000)
    job = assignment(tmp_path, rows, sequence=sequence, validation={"fraction": 0.1}, training={"batch_size": 5})
    exact = count_rows(_request(job, _BYTES))
    monkeypatch.setattr(estimating, "EXACT_BYTES", 1)
    monkeypatch.setattr(estimating, "SAMPLE_BYTES", -(-job.dataset.path.stat().st_size // 10))
    near = count_rows(_request(job, _BYTES))
    assert not near.exact
    assert near.sample_rows == 300
    assert (near.rows, near.validation_rows) == (exact.rows, exact.validation_rows) == (2700, 300)
    for name in ("sequences", "tokens_per_epoch", "batches_per_epoch", "validation_sequences"):
        assert getattr(near, name) == pytest.approx(getattr(exact, name), rel=0.1), name
    assert near.padding == pytest.approx(exact.padding, abs=0.03)
    assert near.largest_batch == exact.largest_batch


def test_reading_a_sample_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = assignment(tmp_path, texts(3000))
    monkeypatch.setattr(estimating, "_SECONDS_TO_READ", 0.0)
    near = count_rows(_request(job, _BYTES))
    assert (near.exact, near.sample_rows, near.rows) == (False, 1, 3000)


def test_what_could_not_be_trained_on_is_said_before(tmp_path: Path) -> None:
    job = assignment(tmp_path, [[1], [2]])
    with pytest.raises(InvalidInput, match="No row can be trained on: of 2 rows, 2 sequences are shorter"):
        count_rows(_request(job, None))


def test_small_data_yields_fewer_tokens_than_asked_for(tmp_path: Path) -> None:
    job = assignment(tmp_path, texts(20), tokenizer={"train": {}})
    counts = count_rows(_request(job, TokenizerSource(learn=TokenizerTraining())))
    assert counts.vocab_size < 4096
    assert any("instead of 4096" in warning for warning in counts.warnings)


def test_the_parameters_are_those_of_the_learnt_vocabulary(tmp_path: Path) -> None:
    job = assignment(tmp_path, texts(50), tokenizer={"train": {}}, model={"config": GPT2})
    planned = of(list(prepare(job)), Planned)[0]
    counts = count_rows(_request(job, TokenizerSource(learn=TokenizerTraining())))
    assert isinstance(job.spec.model, NewModel)
    assert job.spec.model.config.parameters(counts.vocab_size, job.spec.sequence.max_length) == planned.parameters
    assert JobSpec.model_validate(json.loads(job.spec.model_dump_json())) == job.spec
