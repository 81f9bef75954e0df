"""The plan of a run before it runs: its tokens counted in a confined process, all of a small dataset or a sample."""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from core import confined
from core.confined import OverLimit
from core.dataset_files import DataFile
from core.job_spec import JobSpec
from core.memory_estimate import Memory, estimate
from core.model_shapes import AnyShape
from core.model_spec import NewModel
from core.run_plan import Counts, Disk, RunPlan, counted, disk_of, steps_of
from core.tokenizer_source import TokenizerSource

_SECONDS = 20.0
_MEMORY = 4 * 2**30


class CountRequest(BaseModel):
    """Count what the rows of a dataset come to under a spec, read with a tokenizer (None: rows of token ids alone).

    `vocab_size` is that of the model where there is one already.
    """

    model_config = ConfigDict(frozen=True)

    spec: JobSpec
    dataset: DataFile
    validation: DataFile | None
    tokenizer: TokenizerSource | None
    vocab_size: int | None


@dataclass(frozen=True)
class Question:
    """What a plan is made of: the first one, what is still to be counted (None: that cannot be done here), and the
    shape of the model, where it is known.
    """

    spec: JobSpec
    plan: RunPlan
    count: CountRequest | None
    shape: AnyShape | None


def estimated(question: Question) -> RunPlan:
    """Return the plan with all that can be said in a few seconds. Raises InvalidInput where the rows are of no use."""
    if question.count is None:
        return question.plan
    try:
        counts = confined.call(
            "core.tokens.estimating:count_rows",
            question.count,
            Counts,
            what="Counting the tokens",
            seconds=_SECONDS,
            memory=_MEMORY,
        )
    except OverLimit as error:
        warning = f"{error.detail} The trainer counts them before its first update."
        return question.plan.model_copy(update={"warnings": [*question.plan.warnings, warning]})
    parameters = _parameters(question, counts)
    return counted(
        question.spec,
        counts,
        parameters=parameters,
        memory=_memory(question, counts, parameters),
        disk=_disk(question, counts, parameters),
    )


def _parameters(question: Question, counts: Counts) -> int | None:
    """Return how many weights there are: of a new model by the vocabulary that there is, not by what was asked for."""
    if isinstance(question.spec.model, NewModel):
        return question.spec.model.config.parameters(counts.vocab_size, question.spec.sequence.max_length)
    return question.plan.parameters


def _memory(question: Question, counts: Counts, parameters: int | None) -> Memory | None:
    if parameters is None or question.shape is None:
        return None
    return estimate(
        question.shape,
        question.spec.training,
        parameters=parameters,
        trained=parameters,
        vocab_size=counts.vocab_size,
        largest_batch=counts.largest_batch,
    )


def _disk(question: Question, counts: Counts, parameters: int | None) -> Disk | None:
    if parameters is None:
        return None
    steps = steps_of(question.spec.training, counts.batches_per_epoch)
    return disk_of(question.spec, steps=steps, saved=parameters, trained=parameters)
