"""What must be true of a job in the end, whatever was done to it on the way."""

import os
import time
from itertools import groupby, pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

from core import checkpoints, metrics
from core.checkpoint_files import verify
from core.job_states import TERMINAL
from tests.installation import Installation
from worker import sweeper


def verified(installation: Installation, job_id: str) -> set[str]:
    """Compare every listed checkpoint with its hashes, and return the store's keys of what is listed."""
    listed = set()
    for row in installation.checkpoints(job_id):
        for part, files in (("model", row.files), ("state", row.state_files)):
            if files:
                verify(installation.folder(row) / part, files)
                listed.add(f"{checkpoints.store_key(row)}/{part}")
    return listed


def account(installation: Installation, job_id: str, weights: str) -> None:
    """Check a job that has succeeded: its log, its curve, its checkpoints, its weights, and what lies in the store."""
    assert installation.job(job_id).status == "succeeded"
    _the_log_is_one_story(installation, job_id)
    _every_batch_is_in_the_curve(installation, job_id)
    _the_checkpoints_are_whole_and_nothing_else_is_there(installation, job_id)
    assert installation.weights(job_id) == weights


def _the_log_is_one_story(installation: Installation, job_id: str) -> None:
    log = installation.log(job_id)
    assert all(before.cursor < after.cursor for before, after in pairwise(log))
    for fence, events in groupby(log, key=lambda event: event.cursor.fence):
        numbers = [event.cursor.seq for event in events]
        assert numbers == list(range(1, len(numbers) + 1)), f"fence {fence} has gaps"
    assert [event.type for event in log if event.type in TERMINAL] == ["succeeded"]
    assert log[-1].type == "succeeded"


def _every_batch_is_in_the_curve(installation: Installation, job_id: str) -> None:
    job = installation.job(job_id)
    with installation.work.reading() as session:
        batches = [point.batch for point in metrics.batches(session, job_id)]
    assert batches == list(range(1, job.plan["batches_per_epoch"] * job.spec["training"]["epochs"] + 1))


def _the_checkpoints_are_whole_and_nothing_else_is_there(installation: Installation, job_id: str) -> None:
    root = Path(unquote(urlsplit(installation.settings.store).path))
    long_ago = time.time() - 3600
    for path in (root / "incoming").rglob("*"):
        os.utime(path, (long_ago, long_ago))
    sweeper.sweep(installation.work, installation.store)
    assert list((root / "incoming").iterdir()) == []
    there = {path.relative_to(root).as_posix() for path in (root / checkpoints.folder_key(job_id)).glob("*/*")}
    assert there == verified(installation, job_id)
