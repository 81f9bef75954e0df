"""A checkpoint's folder against its hashes: no damage goes unseen, and `sha256sum -c` agrees."""

import subprocess
from pathlib import Path

import pytest

from core.checkpoint_files import MANIFEST, FileEntry, list_files, manifest_sha256, verify, write_manifest
from core.errors import Corrupt


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder of a few files, one of them empty."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 5000)
    (folder / "config.json").write_text("{}")
    (folder / "empty").touch()
    return folder


@pytest.fixture
def files(folder: Path) -> list[FileEntry]:
    """What the folder held when it was whole."""
    return list_files(folder)


def test_a_sound_folder_passes_and_its_listing_is_by_name(folder: Path, files: list[FileEntry]) -> None:
    verify(folder, files)
    assert [(file["name"], file["bytes"]) for file in files] == [
        ("config.json", 2),
        ("empty", 0),
        ("model.safetensors", 1_280_000),
    ]


def test_sha256sum_checks_the_manifest(folder: Path, files: list[FileEntry]) -> None:
    write_manifest(folder, files)
    command = ["sha256sum", "--strict", "-c", MANIFEST]
    assert subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.count(": OK") == 3
    verify(folder, files)  # the manifest beside them is no damage
    (folder / "config.json").write_text("[]")
    assert subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("place", [0, 640_001, 1_279_999])
def test_one_flipped_bit_is_found(folder: Path, files: list[FileEntry], place: int) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[place] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(Corrupt, match=r"model/model\.safetensors does not match"):
        verify(folder, files)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "empty"])
def test_a_missing_file_is_found(folder: Path, files: list[FileEntry], name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(Corrupt, match=f"model/{name} is missing"):
        verify(folder, files)
    (folder / name).mkdir()
    with pytest.raises(Corrupt, match=f"model/{name} is missing"):
        verify(folder, files)


def test_a_truncated_and_a_grown_file_are_found(folder: Path, files: list[FileEntry]) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    for content in (whole[:-1], b"", whole + b"\0"):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(Corrupt, match="does not match"):
            verify(folder, files)


def test_the_hash_of_the_whole_follows_every_name_and_every_byte(folder: Path, files: list[FileEntry]) -> None:
    first = manifest_sha256(files)
    (folder / "config.json").rename(folder / "config2.json")
    second = manifest_sha256(list_files(folder))
    (folder / "config2.json").write_text("{ }")
    assert len({first, second, manifest_sha256(list_files(folder))}) == 3
