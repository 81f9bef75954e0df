"""A model from the hub, in a folder of this machine: fetched by a process that ends with whoever waits for it."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from core.errors import EpochdError
from core.model_spec import HubModel

_TICK_SECONDS = 0.2
# A passing outage is waited out; a longer one costs the job one of its failures.
_PATIENCE_SECONDS = 30.0


class Order(BaseModel):
    """What to fetch, and for how long to try again where the hub does not answer."""

    hub: str
    revision: str
    folder: Path
    max_parameters: int
    patience_seconds: float


class Outcome(BaseModel):
    """The folder and the commit in it, or why there is none: one that may pass, or one that would come again."""

    folder: Path | None = None
    commit: str = ""
    message: str = ""
    hint: str = ""
    may_pass: bool = False
    disk_full: bool = False


class Fetched(NamedTuple):
    """Where a model lies, and the commit that it is."""

    folder: Path
    commit: str


class Unavailable(EpochdError):
    """There is no such model to train; `hint` says what to do. `may_pass`: the hub only did not answer."""

    def __init__(self, detail: str, hint: str, *, may_pass: bool) -> None:
        super().__init__(detail)
        self.hint, self.may_pass = hint, may_pass


class Interrupted(EpochdError):
    """Whoever waited for the model no longer wants it."""


def fetch(
    model: HubModel,
    *,
    folder: Path,
    max_parameters: int,
    interrupted: Callable[[], bool],
    patience_seconds: float = _PATIENCE_SECONDS,
) -> Fetched:
    """Return the model's folder below `folder`, fetched if it is not there yet.

    Raises Unavailable, Interrupted, or OSError for a full disk.
    """
    order = Order(
        hub=model.hub,
        revision=model.revision,
        folder=folder,
        max_parameters=max_parameters,
        patience_seconds=patience_seconds,
    )
    outcome = _run(order, interrupted)
    if outcome.disk_full:
        raise OSError(errno.ENOSPC, f"no room for {model.hub} in {folder}")
    if outcome.folder is None:
        raise Unavailable(outcome.message, outcome.hint, may_pass=outcome.may_pass)
    return Fetched(outcome.folder, outcome.commit)


def _run(order: Order, interrupted: Callable[[], bool]) -> Outcome:
    process = subprocess.Popen(
        [sys.executable, "-m", "worker.hub_download"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
        env=_environment(),
    )
    said: str | None = order.model_dump_json()
    try:
        while True:
            try:
                answer, _ = process.communicate(said.encode() if said else None, timeout=_TICK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                said = None
            if interrupted():
                raise Interrupted(f"{order.hub} was not waited for")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode:
        raise Unavailable(
            f"The process that fetches {order.hub} ended with status {process.returncode}.",
            "Look at the worker's log for what it wrote before.",
            may_pass=True,
        )
    return Outcome.model_validate_json(answer)


def _environment() -> dict[str, str]:
    """Return what that process needs: the hub's own settings, and neither a key nor an address of epochd's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EPOCHD_")}
    return inherited | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
