"""What a run must remember, besides weights and optimizer, to go on as if it had never stopped.

It is little, because the rest follows from the spec: the place in the data and the epoch from `step`, the order of the
rows, the dropout and the samples from the seed and that place.
"""

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


class RunState(BaseModel):
    """`step` of `steps` windows are done, discarded ones included. Where that ends an epoch, the epoch is closed:
    evaluated and told. `fingerprint` names the plan, without which the rest means nothing.
    """

    model_config = ConfigDict(extra="forbid")

    fingerprint: str
    steps: int
    step: int = 0
    discarded_in_a_row: int = 0
    fitting_positions: int | None = None
    sums: EpochSums = EpochSums()

    @property
    def finished(self) -> bool:
        """Whether every window is done."""
        return self.step == self.steps
