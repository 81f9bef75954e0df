"""What a run must remember, besides weights and optimizer, to go on as if it had never stopped.

It is little, because the rest follows from the spec: the place in the data and the epoch from `step`, the order of the
rows, the dropout and the samples from the seed and that place.
"""

import math

from pydantic import BaseModel, ConfigDict


class EpochSums(BaseModel):
    """The epoch so far, over the windows that were applied."""

    model_config = ConfigDict(extra="forbid")

    loss: float = 0.0
    correct: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def mean_loss(self) -> float | None:
        """The mean loss per token; None where no window was applied."""
        return self.loss / self.tokens if self.tokens else None

    @property
    def accuracy(self) -> float | None:
        """The share of tokens predicted best; None where no window was applied."""
        return self.correct / self.tokens if self.tokens else None


class Validation(BaseModel):
    """What early stopping goes by: the best validation loss so far, and how many epochs in a row were no better."""

    model_config = ConfigDict(extra="forbid")

    best: float | None = None
    epochs_no_better: int = 0

    def take_in(self, loss: float, *, threshold: float) -> None:
        """Take in the validation loss of an epoch. Better is what falls more than `threshold` below the best."""
        if math.isfinite(loss) and (self.best is None or loss < self.best - threshold):
            self.best, self.epochs_no_better = loss, 0
        else:
            self.epochs_no_better += 1


class LossScale(BaseModel):
    """Half precision: by how much the loss is multiplied, and for how many windows that has gone well."""

    model_config = ConfigDict(extra="forbid")

    scale: float
    good_windows: int


class RunState(BaseModel):
    """`step` of `steps` windows are done, discarded ones included. Where that ends an epoch, the epoch is closed
    (evaluated, told and sampled from), unless it was left open for a stop. `fingerprint` names the plan, without which
    the rest means nothing. `overflows` were discarded because their gradients left the range of half precision, and the
    learning rate's schedule did not move.
    """

    model_config = ConfigDict(extra="forbid")

    fingerprint: str
    steps: int
    step: int = 0
    epoch_left_open: bool = False
    discarded_in_a_row: int = 0
    overflows: int = 0
    loss_scale: LossScale | None = None
    fitting_positions: int | None = None
    sums: EpochSums = EpochSums()
    validation: Validation = Validation()
    stopped_early: bool = False

    @property
    def finished(self) -> bool:
        """Whether every window is done, or no more are to be, and the last epoch is closed."""
        return self.stopped_early or (self.step == self.steps and not self.epoch_left_open)
