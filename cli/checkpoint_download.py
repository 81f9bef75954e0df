"""Fetching a checkpoint: files side by side, each resumable, each verified, and the folder as a whole or not at all."""

import hashlib
import os
import re
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import BinaryIO

from cli.client import Client, Json, Unanswered
from cli.patience import Patience
from core.errors import Conflict, Corrupt, InvalidInput, NotFound

# Hears of a file's name and how many of its bytes came; fewer than none where some have to come again.
Progress = Callable[[str, int], None]

_AT_ONCE = 4
_CHUNK_BYTES = 1 << 18
_PATIENCE_SECONDS = 120.0
_LEAVE_SECONDS = 5.0


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
    """Fetch and verify every file, several at once. `progress` hears of each file's bytes as they are there.

    A connection that breaks is taken up again. An interrupted download leaves `<folder>.partial`, and the next one goes
    on with it. Raises Corrupt where the bytes that came are not those the server promised.
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
    _Downloads(client, partial, progress).bring(list(files.values()))
    partial.rename(folder)  # onto nothing, or onto an empty folder


class _Stopped(Exception):
    """Another file has failed."""


class _Downloads:
    """Files under way. What brings them dies with this process, whatever it waits for: Ctrl-C ends it at once."""

    def __init__(self, client: Client, folder: Path, progress: Progress) -> None:
        self._client, self._folder, self._progress = client, folder, progress
        self._waiting: SimpleQueue[Json] = SimpleQueue()
        self._outcomes: SimpleQueue[Exception | None] = SimpleQueue()
        self._stop = Event()

    def bring(self, files: list[Json]) -> None:
        """Return when every file is there. Raises what the first one failed with that did."""
        for file in sorted(files, key=itemgetter("bytes"), reverse=True):
            self._waiting.put(file)
        threads = [Thread(target=self._work, daemon=True) for _ in range(min(_AT_ONCE, len(files)))]
        for thread in threads:
            thread.start()
        for _ in files:
            if error := self._outcomes.get():
                self._stop.set()
                for thread in threads:
                    thread.join(_LEAVE_SECONDS)  # another download may follow, into the same files
                raise error

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                file = self._waiting.get_nowait()
            except Empty:
                return
            try:
                self._bring(file)
            except Exception as error:  # noqa: BLE001 - whatever it was, it is raised where it is waited for
                self._outcomes.put(error)
            else:
                self._outcomes.put(None)

    def _bring(self, file: Json) -> None:
        path = self._folder / file["name"]
        # A torso of something else, or a damaged one, is found out at its end: the whole file is then fetched anew.
        if not self._is_whole(file, path):
            path.unlink()
            if not self._is_whole(file, path):
                path.unlink()
                raise Corrupt(f"{path.name} does not match its sha256: it is damaged on the server, or on its way.")

    def _is_whole(self, file: Json, path: Path) -> bool:
        """Bring a file to its full length, from wherever it stopped, and say whether its hash is right."""
        have = path.stat().st_size if path.exists() else 0
        if have > file["bytes"]:
            return False
        self._progress(path.name, have)
        patience = Patience(_PATIENCE_SECONDS)
        with path.open("ab") as stream:
            while have < file["bytes"]:
                before = have
                try:
                    self._append(file, stream, have)
                except Unanswered as error:
                    have = os.fstat(stream.fileno()).st_size
                    if have > before:
                        patience.renew()
                    patience.wait(error)
                else:
                    break
        if _sha256(path) == file["sha256"]:
            return True
        self._progress(path.name, -path.stat().st_size)
        return False

    def _append(self, file: Json, stream: BinaryIO, have: int) -> None:
        with self._client.download(file["url"], start=have) as response:
            if have and response.status_code != 206:
                stream.truncate(0)
                self._progress(file["name"], -have)
            for chunk in response.iter_raw(_CHUNK_BYTES):
                stream.write(chunk)
                stream.flush()
                self._progress(file["name"], len(chunk))
                if self._stop.is_set():
                    raise _Stopped


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
