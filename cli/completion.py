"""What a shell offers at the Tab key: the ids of jobs and datasets, with their names."""

from cli.client import Client, Json
from cli.screen import safe
from core.errors import EpochdError

# A person waits at the keyboard.
_TIMEOUT_SECONDS = 2.0
_OFFERED = 50


def job_ids(incomplete: str) -> list[tuple[str, str]]:
    """Return the newest jobs whose ids begin so, and what they are called."""
    return [(job["id"], safe(f"{job['name']}, {job['status']}")) for job in _found("/jobs", incomplete)]


def dataset_ids(incomplete: str) -> list[tuple[str, str]]:
    """Return the newest datasets whose ids begin so, and their files."""
    return [(dataset["id"], safe(dataset["filename"])) for dataset in _found("/datasets", incomplete)]


def _found(path: str, incomplete: str) -> list[Json]:
    try:
        listed = Client.from_environment(timeout=_TIMEOUT_SECONDS).get(path, limit=_OFFERED)["data"]
    except EpochdError:
        return []  # nothing to offer: the command itself will say what is wrong
    return [item for item in listed if item["id"].startswith(incomplete)]
