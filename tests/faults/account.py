"""What must be true of a job in the end, whatever was done to it on the way. Each check raises AssertionError, or
Corrupt where a file is not what its hash says.
"""

import os
import time
from itertools import groupby, pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

from core import checkpoints, metrics
from core.checkpoint_files import verify
from core.events import Event
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
    log = installation.log(job_id)
    the_log_is_one_story(log)
    assert [event.type for event in log if event.type in TERMINAL] == ["succeeded"]
    every_batch_is_in_the_curve(installation, job_id)
    swept(installation)
    only_what_is_listed_is_there(installation, job_id)
    assert installation.weights(job_id) == weights


def the_log_is_one_story(log: list[Event]) -> None:
    """Check that the log is in order, without a gap under any fence, and silent after a success."""
    assert all(before.cursor < after.cursor for before, after in pairwise(log))
    for fence, events in groupby(log, key=lambda event: event.cursor.fence):
        numbers = [event.cursor.seq for event in events]
        assert numbers == list(range(1, len(numbers) + 1)), f"fence {fence} has gaps"
    assert "succeeded" not in [event.type for event in log[:-1]], "the log goes on after the success"


def every_batch_is_in_the_curve(installation: Installation, job_id: str) -> None:
    """Check that the curve of a job that has succeeded holds each batch once."""
    job = installation.job(job_id)
    whole = list(range(1, job.plan["batches_per_epoch"] * job.spec["training"]["epochs"] + 1))
    with installation.work.reading() as session:
        # One further: none is told of that was never there.
        batches = [point.batch for point in metrics.batches(session, job_id, 1, len(whole) + 1)]
    assert batches == whole


def swept(installation: Installation) -> None:
    """Let a worker's sweep do what it would do later, and check that nothing unfinished is left."""
    incoming = root_of(installation) / "incoming"
    long_ago = time.time() - 3600
    for path in incoming.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    sweeper.sweep(installation.work, installation.store, installation.settings)
    assert list(incoming.iterdir()) == []


def only_what_is_listed_is_there(installation: Installation, job_id: str) -> None:
    """Check that the store holds of a job exactly what is listed, each file with its hash."""
    root = root_of(installation)
    there = {path.relative_to(root).as_posix() for path in (root / checkpoints.folder_key(job_id)).glob("*/*")}
    listed = verified(installation, job_id)
    assert there == listed, f"unlisted: {sorted(there - listed)}, missing: {sorted(listed - there)}"


def root_of(installation: Installation) -> Path:
    """Return the folder of the store."""
    return Path(unquote(urlsplit(installation.settings.store).path))
