"""What a trainer says: facts, one JSON line each on its standard output. It never calls upward; this is all it tells.

Numbers are plain and finite, or None where the computation gave NaN or infinity (JSON has neither).
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from core.run_plan import RunPlan


class _Fact(BaseModel):
    # A NaN or an infinity is written as null.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    def line(self) -> str:
        """Return the fact as one line of JSON."""
        return self.model_dump_json() + "\n"


class Ready(_Fact):
    """The imports are done: an assignment will be taken up at once."""

    fact: Literal["ready"] = "ready"


class Preparing(_Fact):
    """How far the data is: `done` of `total` rows of this phase."""

    fact: Literal["preparing"] = "preparing"
    phase: Literal["tokenizer", "tokens"]
    done: int
    total: int


class Planned(_Fact, RunPlan):
    """The run as it will be, counted exactly."""

    fact: Literal["planned"] = "planned"
    steps: int
    batches_per_epoch: int


class Batch(_Fact):
    """One batch. `batch` and `step` count from 1 over the whole run; the loss is the mean over `tokens`.

    On the last batch of a window also `tokens_per_second` (of that window) and `grad_norm` (before clipping), which is
    None where the window was not applied.
    """

    fact: Literal["batch"] = "batch"
    epoch: int
    batch: int
    step: int
    loss: float | None
    accuracy: float | None
    learning_rate: float
    tokens: int
    grad_norm: float | None = None
    tokens_per_second: float | None = None


class Alive(_Fact):
    """Where the run is, told every few seconds at most: where `log_every` or an evaluation would make it silent."""

    fact: Literal["alive"] = "alive"
    epoch: int
    step: int


class Epoch(_Fact):
    """A whole epoch: loss and accuracy over all its tokens. Perplexity is of the validation loss where there is one."""

    fact: Literal["epoch"] = "epoch"
    epoch: int
    step: int
    loss: float | None
    accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    perplexity: float | None
    seconds: float


class Sample(_Fact):
    """What the model made of a prompt at the end of an epoch; `text` is the continuation alone."""

    fact: Literal["sample"] = "sample"
    epoch: int
    prompt: str
    text: str


class Checkpoint(_Fact):
    """A complete folder lies at `path`. `epoch` is the epoch it was saved in, `step` the last update in it.

    `ordered` where it answers an order to save.
    """

    fact: Literal["checkpoint"] = "checkpoint"
    epoch: int
    step: int
    path: Path
    loss: float | None
    accuracy: float | None
    validation_loss: float | None
    ordered: bool = False


class Warned(_Fact):
    """Something the user should know, and that did not stop the run."""

    fact: Literal["warning"] = "warning"
    code: str
    message: str


class Stopped(_Fact):
    """Obeyed. The checkpoint of `step` was told before, or is the one resumed from; 0 has none."""

    fact: Literal["stopped"] = "stopped"
    step: int


class Finished(_Fact):
    """All epochs are done, or early stopping ended the run; the last update's checkpoint was told before this."""

    fact: Literal["finished"] = "finished"
    step: int
    stopped_early: bool = False


class Failed(_Fact):
    """The run cannot go on, and would fail again: what happened, and what the user can do about it."""

    fact: Literal["failed"] = "failed"
    code: Literal["out_of_memory", "diverged", "data", "disk_full", "internal"]
    message: str
    hint: str


Fact = Annotated[
    Ready | Preparing | Planned | Batch | Alive | Epoch | Sample | Checkpoint | Warned | Stopped | Finished | Failed,
    Field(discriminator="fact"),
]

_facts: TypeAdapter[Fact] = TypeAdapter(Fact)


def read_fact(line: str | bytes) -> Fact:
    """Read one line. Raises pydantic.ValidationError where it is none of the facts above."""
    return _facts.validate_json(line)
