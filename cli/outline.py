"""How long a job is, as far as its plan knows."""

from cli.client import Json


class Outline:
    """What the bars of a job count up to. `steps` and `batches_per_epoch` are None until the trainer has counted."""

    def __init__(self, job: Json) -> None:
        self.id: str = job["id"]
        self.name: str = job["name"]
        self.epochs: int = job["spec"]["training"]["epochs"]
        self.steps: int | None = job["plan"].get("steps")
        self.batches_per_epoch: int | None = job["plan"].get("batches_per_epoch")
