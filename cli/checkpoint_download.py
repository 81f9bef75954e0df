"""Fetching a checkpoint: each file resumable, each verified, and the folder there as a whole or not at all."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from cli.client import Client, Json
from core.errors import Conflict, Corrupt, InvalidInput, NotFound

Progress = Callable[[int], None]

_CHUNK_BYTES = 1 << 20


def find_checkpoint(client: Client, job_id: str, epoch: str) -> Json:
    """Return a job's newest checkpoint of an epoch (`3`), of all (`latest`), or its best one. Raises NotFound."""
    listed = list(client.pages(f"/jobs/{job_id}/checkpoints"))
    for checkpoint in listed:  # newest first
        if epoch == "latest" or str(checkpoint["epoch"]) == epoch or (epoch == "best" and checkpoint["best"]):
            return checkpoint
    there = ", ".join(sorted({str(c["epoch"]) for c in listed}, key=int)) or "none yet"
    raise NotFound(f"{job_id} has no checkpoint {epoch}. Its epochs with a checkpoint: {there}.")


def default_folder(job: Json, checkpoint: Json) -> Path:
    """Return a folder name that says what it is: docs-gpt-epoch-3."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", job["name"]).strip("-").lower() or job["id"]
    return Path(f"{name}-epoch-{checkpoint['epoch']}")


def is_there(folder: Path, checkpoint: Json) -> bool:
    """Say whether the folder is this checkpoint already. Raises Conflict where it is something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    files = checkpoint["files"]
    same = (
        folder.is_dir()
        and {path.name for path in folder.iterdir()} == {file["name"] for file in files}
        and all(_sha256(folder / file["name"]) == file["sha256"] for file in files)
    )
    if not same:
        raise Conflict(f"{folder} exists and holds something else. Name another folder, or move that one away.")
    return True


def download(client: Client, checkpoint: Json, folder: Path, progress: Progress) -> None:
    """Fetch and verify every file. `progress` hears of bytes as they are there.

    An interrupted download leaves `<folder>.partial`, and the next one goes on with it. Raises Corrupt where the
    bytes that came are not those the server promised.
    """
    partial = folder.with_name(folder.name + ".partial")
    files = {file["name"]: file for file in checkpoint["files"]}
    for name in files:
        if Path(name).name != name or name in ("", ".", ".."):
            raise InvalidInput(f"The server named a file {name!r}: that is no plain name, nothing was written.")
    partial.mkdir(parents=True, exist_ok=True)
    for stray in partial.iterdir():
        if stray.name not in files:
            stray.unlink()  # of an earlier download of something else
    for name, file in files.items():
        path = partial / name
        # A torso of something else, or a damaged one, is found out at its end: the whole file is then fetched anew.
        if not _fetched(client, file, path, progress):
            path.unlink()
            if not _fetched(client, file, path, progress):
                path.unlink()
                raise Corrupt(f"{name} does not match its sha256: it is damaged on the server, or on its way.")
    partial.rename(folder)  # onto nothing, or onto an empty folder


def _fetched(client: Client, file: Json, path: Path, progress: Progress) -> bool:
    """Bring a file to its full length, from wherever it stopped, and say whether its hash is right."""
    have = path.stat().st_size if path.exists() else 0
    if have > file["bytes"]:
        return False
    with path.open("ab") as stream:
        progress(have)
        if have < file["bytes"]:
            with client.download(file["url"], start=have) as response:
                if have and response.status_code != 206:
                    stream.truncate(0)
                    progress(-have)
                for chunk in response.iter_raw(_CHUNK_BYTES):
                    stream.write(chunk)
                    progress(len(chunk))
    if _sha256(path) == file["sha256"]:
        return True
    progress(-path.stat().st_size)
    return False


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
