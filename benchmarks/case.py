"""What a contender of `benchmarks.throughput` is told: the same of every one."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Case:
    """One measurement to make. The rows fill every window: there are `updates_per_epoch` of them, all of one size."""

    rows_path: str
    model: dict[str, int]
    vocab_size: int
    max_length: int
    ragged: bool
    batch_size: int
    accumulation: int
    updates_per_epoch: int
    warmup_updates: int
    seconds: float
    seed: int
    device: Device
    learning_rate: float = 3e-4
    warmup_steps: int = 100
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    epochs: int = 1000  # what the learning rate is planned for: more than any contender gets to

    @property
    def rows_per_update(self) -> int:
        """How many rows an update sees."""
        return self.batch_size * self.accumulation

    @property
    def steps(self) -> int:
        """How many updates the run is planned for."""
        return self.updates_per_epoch * self.epochs

    def rows(self) -> list[list[int]]:
        """Read the rows."""
        lines = Path(self.rows_path).read_text().splitlines()
        return [json.loads(line)["input_ids"] for line in lines]

    def write(self, path: Path) -> None:
        """Write the case for another process to read."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: str) -> "Case":
        """Read a case that was written."""
        return cls(**json.loads(Path(path).read_text()))


def job_spec(case: Case, *, dataset: str) -> dict[str, Any]:
    """Return the case as the spec of an epochd job: no validation, and no checkpoint while it is measured."""
    return {
        "name": "throughput",
        "dataset": dataset,
        "validation": None,
        "model": {"config": {"model_type": "gpt2", **case.model}},
        "sequence": {"max_length": case.max_length},
        "training": {
            "epochs": case.epochs,
            "batch_size": case.batch_size,
            "gradient_accumulation_steps": case.accumulation,
            "learning_rate": case.learning_rate,
            "warmup_steps": case.warmup_steps,
            "weight_decay": case.weight_decay,
            "max_grad_norm": case.max_grad_norm,
            "seed": case.seed,
            "precision": "bf16" if case.device == "cuda" else "fp32",
        },
        "checkpoints": {"every_epochs": 10_000},
    }
