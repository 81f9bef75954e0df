"""A trainer's finished folder becomes a published checkpoint: hashed, moved into the store, listed under the fence."""

from sqlmodel import Session

from core import checkpoints
from core.checkpoint_files import list_files, write_manifest
from core.failpoints import reach
from core.job_spec import Checkpoints
from core.jobs import Claim
from core.models import Checkpoint
from core.store import Store
from worker.recorder import Recorder
from worker.training import facts


class Publisher:
    """Publishes the checkpoints of one claim."""

    def __init__(self, claim: Claim, retention: Checkpoints, store: Store, recorder: Recorder) -> None:
        self._claim, self._retention, self._store, self._recorder = claim, retention, store, recorder

    def move_in(self, fact: facts.Checkpoint) -> Checkpoint:
        """Hash the folder and move it into the store: not listed yet. Raises OSError."""
        reach("checkpoint told")
        files = list_files(fact.path / "model")
        state_files = list_files(fact.path / "state")
        write_manifest(fact.path / "model", files)
        write_manifest(fact.path / "state", state_files)
        checkpoint = checkpoints.new(
            self._claim.job_id,
            self._claim.fence,
            step=fact.step,
            epoch=fact.epoch,
            files=files,
            state_files=state_files,
            loss=fact.loss,
            accuracy=fact.accuracy,
            validation_loss=fact.validation_loss,
        )
        reach("manifests written")
        self._store.adopt(fact.path, checkpoints.store_key(checkpoint))
        reach("checkpoint moved in")
        return checkpoint

    def list(self, checkpoint: Checkpoint, *, ordered: bool) -> None:
        """List it and thin out the older ones; `ordered` where it answers a request to save.

        Raises FenceLost, or one of OUTAGES; safe to repeat.
        """
        data = {
            "epoch": checkpoint.epoch,
            "step": checkpoint.step,
            "bytes": checkpoint.bytes,
            "sha256": checkpoint.manifest_sha256,
            "link": f"/jobs/{checkpoint.job_id}/checkpoints/{checkpoint.epoch}/archive",
        }
        gone: list[str] = []

        def add_row(session: Session) -> None:
            gone.clear()
            checkpoints.add(session, Checkpoint(**checkpoint.model_dump()))
            gone.extend(checkpoints.retire(session, checkpoint.job_id, self._retention.keep))
            reach("checkpoint list")

        # A new checkpoint: whatever was lost before it can no longer be lost again, so the budget is whole.
        answered = {"save_requested": False} if ordered else {}
        self._recorder.write_with("checkpoint", data, add_row, failures=0, **answered)
        reach("checkpoint listed")
        for key in gone:
            self._store.delete(key)
            reach("retired files deleted")
