"""What a run will do and what it takes: the plan, exact where its tokens were counted, an estimate where not."""

import math
from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from core.job_spec import Checkpoints, JobSpec, Training, ValidationFraction
from core.learning_rate import learning_rate
from core.memory_estimate import BYTES_PER_WEIGHT, Memory

Share = Annotated[float, Field(ge=0, le=1)]

# Below this many rows, or tokens, a validation loss says more about them than about the model.
_FEW_ROWS = 10
_FEW_TOKENS = 1000
# A token that is seen less often than this in an epoch has hardly learnt what it means.
_TIMES_SEEN = 10
# With so many weights for each token of the data a model learns the text by heart.
_WEIGHTS_PER_TOKEN = 100


class Counts(BaseModel):
    """What the rows of a run come to; tokens are those that carry loss. Where not `exact`, `sample_rows` rows of the
    dataset were counted, and the numbers of all are projected from them.

    `largest_batch` is the one that takes the most memory: its rows, and their positions padded to the longest.
    """

    model_config = ConfigDict(frozen=True)

    exact: bool
    sample_rows: int | None = None
    vocab_size: int
    rows: int
    validation_rows: int
    skipped_rows: int
    sequences: int
    dropped_sequences: int
    silent_sequences: int
    validation_sequences: int
    validation_tokens: int
    batches_per_epoch: int
    tokens_per_epoch: int
    padding: Share
    largest_batch: tuple[int, int]
    warnings: list[str] = []


class Milestone(BaseModel):
    """The learning rate that one update uses; `step` counts from 1."""

    model_config = ConfigDict(frozen=True)

    at: str
    step: int
    learning_rate: float


class Disk(BaseModel):
    """What checkpoints take of the store, in bytes: `model` is what clients download, `state` what a resume needs.

    `total` is the most that there is at any time, with one under way.
    """

    model_config = ConfigDict(frozen=True)

    model: int
    state: int
    checkpoints: int
    total: int


class RunPlan(BaseModel):
    """The size of a run. Tokens are those that carry loss; what is not known yet is null."""

    model_config = ConfigDict(frozen=True)

    exact: bool = Field(
        default=False, description="false: an estimate from a sample, or not counted yet; the trainer counts exactly"
    )
    sample_rows: int | None = Field(default=None, description="rows that an estimate was projected from")
    parameters: int | None
    vocab_size: int | None
    rows: int = Field(description="rows to train on")
    validation_rows: int
    skipped_rows: int = Field(description="empty rows, which are left out")
    sequences: int | None = Field(default=None, description="what the model sees in an epoch: rows, the long ones cut")
    dropped_sequences: int | None = Field(default=None, description="left out: shorter than sequence.min_length")
    silent_sequences: int | None = Field(default=None, description="left out: no token of theirs carries loss")
    validation_sequences: int | None = None
    batches_per_epoch: int | None = None
    steps: int | None = Field(default=None, description="updates in the whole run")
    tokens_per_epoch: int | None = None
    padding: float | None = Field(
        default=None, description="share of the first epoch's computed positions that are padding"
    )
    learning_rates: list[Milestone] = []
    memory: Memory | None = Field(default=None, description="what a run takes beside its libraries, in bytes")
    disk: Disk | None = None
    warnings: list[str]


def steps_of(training: Training, batches_per_epoch: int) -> int:
    """Return the updates of a whole run."""
    return training.epochs * math.ceil(batches_per_epoch / training.gradient_accumulation_steps)


def milestones(training: Training, steps: int) -> list[Milestone]:
    """Return the learning rate of the first update, at the end of the warmup, in the middle and of the last."""
    warmup = training.warmup(steps)
    places = {"first update": 1, "end of warmup": warmup + 1, "middle": (steps + 1) // 2, "last update": steps}
    if not 0 < warmup < steps:
        del places["end of warmup"]
    return [
        Milestone(
            at=at,
            step=step,
            learning_rate=learning_rate(
                step - 1, total=steps, warmup=warmup, scheduler=training.lr_scheduler, base=training.learning_rate
            ),
        )
        for at, step in places.items()
    ]


def disk_of(spec: JobSpec, *, steps: int, saved: int, trained: int, adapter: bool = False) -> Disk:
    """Return what the checkpoints take: of `saved` weights, and of the optimizer of `trained` ones.

    An adapter's own weights are in the state too.
    """
    wanted, model = spec.checkpoints, saved * BYTES_PER_WEIGHT
    state = (3 if adapter else 2) * trained * BYTES_PER_WEIGHT
    made = _saves(wanted, spec.training.epochs, steps)
    # The best one is kept beside the newest, and the next is whole before an older one goes.
    kept = min(made, wanted.keep + 1)
    return Disk(
        model=model,
        state=state,
        checkpoints=kept,
        total=min(made, kept + 1) * model + min(made, _STATES_AT_ONCE) * state,
    )


# Two are kept, and the next is whole before the older of them goes.
_STATES_AT_ONCE = 3


def _saves(wanted: Checkpoints, epochs: int, steps: int) -> int:
    by_steps = steps // wanted.every_steps if wanted.every_steps else 0
    return min(steps, math.ceil(epochs / wanted.every_epochs) + by_steps)


def counted(
    spec: JobSpec,
    counts: Counts,
    *,
    parameters: int | None,
    memory: Memory | None,
    disk: Disk | None,
    warnings: Iterable[str] = (),
) -> RunPlan:
    """Return the plan of a run whose tokens were counted, or projected. `warnings` are those of the device."""
    steps = steps_of(spec.training, counts.batches_per_epoch)
    return RunPlan(
        **counts.model_dump(exclude={"validation_tokens", "largest_batch", "warnings"}),
        parameters=parameters,
        steps=steps,
        learning_rates=milestones(spec.training, steps),
        memory=memory,
        disk=disk,
        warnings=[*counts.warnings, *_warnings(spec, counts, steps, parameters), *warnings],
    )


def _warnings(spec: JobSpec, counts: Counts, steps: int, parameters: int | None) -> list[str]:
    warnings, warmup, tokens = list[str](), spec.training.warmup(steps), counts.tokens_per_epoch
    if warmup >= steps:
        warnings.append(
            f"The warmup of {warmup} steps is as long as the run ({steps} steps) or longer: "
            "the learning rate never reaches training.learning_rate."
        )
    if isinstance(spec.validation, ValidationFraction) and not counts.validation_rows:
        warnings.append("The dataset has a single row: nothing is held out, so there is no validation loss.")
    if 0 < counts.validation_rows < _FEW_ROWS:
        warnings.append(f"Rows held out for validation: {counts.validation_rows}. The validation loss will be rough.")
    elif 0 < counts.validation_tokens < _FEW_TOKENS:
        warnings.append(f"Tokens to validate on: {counts.validation_tokens}. The validation loss will be rough.")
    if tokens < _TIMES_SEEN * counts.vocab_size:
        warnings.append(
            f"The vocabulary of {counts.vocab_size:,} tokens is large for data of {tokens:,}: on average each is seen "
            f"{tokens / counts.vocab_size:.1f} times in an epoch. Take a smaller vocabulary, or more data."
        )
    if parameters is not None and parameters > _WEIGHTS_PER_TOKEN * tokens:
        warnings.append(
            f"The model of {parameters:,} weights is large for data of {tokens:,} tokens: it will learn the text by "
            "heart. Take a smaller model, or more data."
        )
    return warnings
