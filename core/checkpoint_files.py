"""A checkpoint's folder: `model/` (what clients download), `state/` (what a resume needs), and each file's hash."""

import hashlib
from pathlib import Path
from typing import TypedDict

from core.disk import sync
from core.errors import Corrupt

MANIFEST = "manifest.sha256"


class FileEntry(TypedDict):
    """One file of a folder. Names are flat: checkpoints have no sub-folders below `model/` and `state/`."""

    name: str
    bytes: int
    sha256: str


def list_files(folder: Path) -> list[FileEntry]:
    """Hash every file of a folder, by name."""
    return [
        FileEntry(name=path.name, bytes=path.stat().st_size, sha256=_sha256(path)) for path in sorted(folder.iterdir())
    ]


def manifest_text(files: list[FileEntry]) -> str:
    """Return the files' hashes in the form that `sha256sum -c` checks."""
    return "".join(f"{file['sha256']}  {file['name']}\n" for file in files)


def manifest_sha256(files: list[FileEntry]) -> str:
    """Return the hash that stands for the whole of the files."""
    return hashlib.sha256(manifest_text(files).encode()).hexdigest()


def write_manifest(folder: Path, files: list[FileEntry]) -> None:
    """Leave the hashes beside the files they are of, synced, so that the folder can be checked without a database."""
    path = folder / MANIFEST
    path.write_text(manifest_text(files))
    sync(path)
    sync(folder)


def verify(folder: Path, files: list[FileEntry]) -> None:
    """Check that every file is there with its hash. Raises Corrupt naming the first that is not."""
    for file in files:
        path = folder / file["name"]
        if not path.is_file():
            raise Corrupt(f"{folder.name}/{file['name']} is missing")
        if path.stat().st_size != file["bytes"] or _sha256(path) != file["sha256"]:
            raise Corrupt(f"{folder.name}/{file['name']} does not match its hash")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
