"""What was found in files that were refused: kept for their owner for a while, where it is more than an answer tells.

Nothing in the database knows of them: who presents the owner's key and the id finds the file, and its age says when it
goes.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from core.disk import sync
from core.errors import Corrupt, NotFound
from core.ids import new_id
from core.ownership import Seer
from core.store import Store

# Of so many faults a refused file is told, then the look at it ends.
MOST_FAULTS = 10_000
_FOLDER = "refusals"


def add(store: Store, owner_id: str, findings: Path) -> str:
    """Keep a file of findings and return its id."""
    sync(findings)
    refusal_id = new_id("ref")
    store.adopt(findings, f"{_FOLDER}/{owner_id}/{refusal_id}")
    return refusal_id


def get(store: Store, seer: Seer, refusal_id: str) -> Path:
    """Return the findings that the seer sees. Raises NotFound, for another owner's as for none."""
    for owner_id in store.names(_FOLDER) if seer is None else [seer]:
        with suppress(Corrupt):
            return store.fetch(f"{_FOLDER}/{owner_id}/{refusal_id}")
    raise NotFound(f"There is no refusal {refusal_id}: what was found in a refused file is kept for a day.")


def expired(store: Store, keep_seconds: float) -> Iterator[str]:
    """Yield the store's keys of those that are older than this."""
    for owner_id in store.names(_FOLDER):
        for name in store.names(f"{_FOLDER}/{owner_id}"):
            key = f"{_FOLDER}/{owner_id}/{name}"
            if store.idle_seconds(key) > keep_seconds:
                yield key
