"""A worker played by hand, so that a test decides what reaches SQL, what reaches Redis, and when."""

from typing import Any

from core import checkpoints, jobs, trainer_output
from core.checkpoint_files import list_files
from core.events import Cursor, Event
from core.jobs import Claim
from core.models import Checkpoint, utc_now
from core.store import Store
from core.unit_of_work import UnitOfWork


class PlayedWorker:
    """The holder of one job."""

    def __init__(self, work: UnitOfWork, job_id: str) -> None:
        self.work, self.batch = work, 0
        self.claim = self._claim(job_id)
        self.seq = 1

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.claim.job_id

    def _claim(self, job_id: str) -> Claim:
        with self.work.begin() as session:
            claim = jobs.claim(session, worker="played", claim_id=f"claim-{id(self)}", lease_seconds=600)
        assert claim is not None
        assert claim.job_id == job_id, "another job is first in the queue"
        return claim

    def make(self, count: int, text: str = "") -> list[Event]:
        """Return the next batch events; they are nowhere yet."""
        made = []
        for _ in range(count):
            self.seq += 1
            self.batch += 1
            data: dict[str, Any] = {
                "epoch": 1,
                "batch": self.batch,
                "step": (self.batch + 1) // 2,
                "loss": 1 / self.batch,
                "accuracy": 0.5,
                "learning_rate": 1e-3,
                "tokens": 100,
            }
            kind = "batch"
            if text:
                kind, data = "sample", {"epoch": 1, "prompt": "", "text": text}
            made.append(Event(Cursor(self.claim.fence, self.seq), kind, utc_now(), data))
        return made

    def publish(self, events: list[Event]) -> None:
        """Put events on the live tail."""
        self.work.live_log.publish(self.job_id, events)

    def record(self, events: list[Event]) -> None:
        """Put events into the log of record."""
        with self.work.begin() as session:
            jobs.record(session, self.claim, events)

    def tell(self, count: int) -> list[Event]:
        """Write events to both, as a real worker does."""
        made = self.make(count)
        self.publish(made)
        self.record(made)
        return made

    def event(self, kind: str, **data: Any) -> Event:
        """Write one event of another kind to both."""
        self.seq += 1
        made = Event(Cursor(self.claim.fence, self.seq), kind, utc_now(), data)
        self.publish([made])
        self.record([made])
        return made

    def write(self, lines: int, text: str) -> None:
        """Write what its trainer wrote: of so many lines the last."""
        told: dict[str, Any] = {"job_id": self.job_id, "fence": self.claim.fence, "attempt": self.claim.attempt}
        with self.work.begin() as session:
            trainer_output.write(session, **told, lines=lines, text=text)

    def checkpoint(
        self, store: Store, files: dict[str, bytes], *, epoch: int = 1, step: int = 1, **metrics: float | None
    ) -> Checkpoint:
        """Publish a checkpoint of these files."""
        with store.incoming() as folder:
            (folder / "model").mkdir(parents=True)
            for name, content in files.items():
                (folder / "model" / name).write_bytes(content)
            (folder / "state").mkdir()
            row = checkpoints.new(
                self.job_id,
                self.claim.fence,
                step=step,
                epoch=epoch,
                files=list_files(folder / "model"),
                state_files=[],
                **{"loss": 2.0, "accuracy": 0.5, "validation_loss": None, **metrics},
            )
            store.adopt(folder, checkpoints.store_key(row))
        with self.work.begin() as session:
            jobs.record(session, self.claim, [])
            checkpoints.add(session, row)
        return row

    def requeue_and_claim(self) -> None:
        """Give the job back and take it again, under a higher fence."""
        with self.work.begin() as session:
            jobs.stop(session, self.claim, "drain")
        self.claim = self._claim(self.job_id)
        self.seq = 1

    def succeed(self, store: Store) -> None:
        """End the job well."""
        self.checkpoint(store, {"config.json": b"{}"}, epoch=9, step=9)
        with self.work.begin() as session:
            jobs.succeed(session, self.claim, 9)
