"""What a test starts from: an owner, a dataset, a queued job, a job in a worker's hands."""

from typing import Any
from uuid import uuid4

from sqlmodel import Session

from core import checkpoints, events, jobs
from core.events import START, Event
from core.ids import new_id
from core.job_spec import JobSpec
from core.jobs import Claim, JobError
from core.models import Checkpoint, Dataset, Job, Owner
from core.settings import Settings
from core.unit_of_work import UnitOfWork

LOST = JobError("worker_lost", "The worker is gone.", "Look at its machine.")


class House:
    """One owner with one dataset, and short names for what happens to jobs."""

    def __init__(self, work: UnitOfWork) -> None:
        self.work, self.limits = work, Settings(_env_file=None, max_live_jobs=10_000)  # type: ignore[call-arg]
        self.owner_id = self.new_owner()
        self.dataset_id = self.new_dataset()

    def new_owner(self) -> str:
        """Add an owner."""
        owner = Owner(id=new_id("own"), name=uuid4().hex)
        with self.work.begin() as session:
            session.add(owner)
        return owner.id

    def new_dataset(self, *, owner_id: str = "", rows: int = 100, ids_up_to: int | None = None) -> str:
        """Add the row of a dataset: of text, or of token ids."""
        dataset = Dataset(
            id=new_id("ds"),
            owner_id=owner_id or self.owner_id,
            filename="corpus.jsonl",
            format="jsonl",
            split="blank_line",
            bytes=1,
            sha256=uuid4().hex,
            rows=rows,
            columns=["text"] if ids_up_to is None else ["input_ids"],
            report={"warnings": [], "skipped_rows": 0, "largest_id": ids_up_to},
        )
        with self.work.begin() as session:
            session.add(dataset)
        return dataset.id

    def spec(self, **fields: Any) -> JobSpec:
        """Return a spec on the dataset."""
        return JobSpec.model_validate({"dataset": self.dataset_id} | fields)

    def submit_in(self, session: Session, key: str | None = None, sha256: str = "s", **fields: Any) -> tuple[Job, bool]:
        """Submit a job in a transaction of the caller's."""
        return jobs.submit(
            session, self.owner_id, self.spec(**fields), self.limits, idempotency_key=key, request_sha256=sha256
        )

    def submit(self, key: str | None = None, sha256: str = "s", **fields: Any) -> Job:
        """Submit a job."""
        with self.work.begin() as session:
            return self.submit_in(session, key, sha256, **fields)[0]

    def claim(self, *, lease_seconds: float = 90.0, worker: str = "w") -> Claim | None:
        """Claim the next job."""
        with self.work.begin() as session:
            return jobs.claim(session, worker=worker, claim_id=uuid4().hex, lease_seconds=lease_seconds)

    def running(self, *, lease_seconds: float = 90.0, worker: str = "w", **fields: Any) -> Claim:
        """Submit a job and claim it."""
        job = self.submit(**fields)
        claim = self.claim(lease_seconds=lease_seconds, worker=worker)
        assert claim
        assert claim.job_id == job.id
        return claim

    def do(self, move: Any, *arguments: Any, **named: Any) -> Any:
        """Make one move in a transaction of its own."""
        with self.work.begin() as session:
            return move(session, *arguments, **named)

    def cancel(self, job_id: str) -> Job:
        """Ask for a cancel."""
        return self.do(jobs.request_cancel, self.owner_id, job_id)

    def job(self, job_id: str) -> Job:
        """Read a job."""
        with self.work.reading() as session:
            return session.get_one(Job, job_id)

    def log(self, job_id: str) -> list[Event]:
        """Read a job's whole log."""
        with self.work.reading() as session:
            return events.read(session, job_id, START, 10_000)

    def told(self, job_id: str) -> list[str]:
        """Return the types of a job's events."""
        return [event.type for event in self.log(job_id)]

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """Read a job's checkpoints, newest first."""
        with self.work.reading() as session:
            return checkpoints.all_of(session, job_id)

    def publish(self, claim: Claim, step: int, *, state: bool = True, **fields: Any) -> Checkpoint:
        """List a checkpoint under a claim."""
        row = a_checkpoint(claim, step, state=state, **fields)
        with self.work.begin() as session:
            jobs.record(session, claim, [])
            checkpoints.add(session, row)
        return row


def a_checkpoint(claim: Claim, step: int, *, state: bool = True, **fields: Any) -> Checkpoint:
    """Return the row of a checkpoint."""
    entry = {"name": "model.safetensors", "bytes": 4, "sha256": "0" * 64}
    numbers = {"epoch": step, "loss": 1.0, "accuracy": 0.5, "validation_loss": None} | fields
    return checkpoints.new(
        claim.job_id,
        claim.fence,
        step=step,
        files=[entry],  # type: ignore[list-item]
        state_files=[entry] if state else [],  # type: ignore[list-item]
        **numbers,
    )
