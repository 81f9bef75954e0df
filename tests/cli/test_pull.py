"""`epochd pull`: whole or not at all, resumed by Range, and never with a wrong byte."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import NamedTuple

import httpx
import pytest

from cli.client import Client, Json
from core.checkpoint_files import verify
from tests.cli.conftest import Main
from tests.stack import Stack


class Trained(NamedTuple):
    """A job that succeeded, its newest checkpoint as the API lists it, and its folder on the server."""

    job: str
    checkpoint: Json
    stored: Path


@pytest.fixture(scope="module")
def trained(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    ended = stack.epochd("submit", stack.write_spec(tmp_path_factory.mktemp("spec")), "--watch")
    job = ended.stdout.splitlines()[0]
    checkpoint = stack.client().get(f"/jobs/{job}/checkpoints")["data"][0]
    [stored] = (stack.data_dir / "store" / "checkpoints" / job).glob(f"*-{checkpoint['step']}")
    return Trained(job, checkpoint, stored / "model")


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """From which byte on each file was asked for."""
    asked: dict[str, list[int]] = {}
    download = Client.download

    @contextmanager
    def noted(self: Client, path: str, *, start: int) -> Iterator[httpx.Response]:
        asked.setdefault(path.split("?", maxsplit=1)[0].rsplit("/", maxsplit=1)[-1], []).append(start)
        with download(self, path, start=start) as response:
            yield response

    monkeypatch.setattr(Client, "download", noted)
    return asked


def test_a_checkpoint_arrives_whole(on_stack: Main, trained: Trained, tmp_path: Path) -> None:
    ended = on_stack("pull", f"{trained.job}@latest")

    assert (ended.status, ended.out) == (0, "tiny-test-epoch-2\n")
    folder = tmp_path / "tiny-test-epoch-2"
    verify(folder, trained.checkpoint["files"])
    assert {path.name for path in folder.iterdir()} == {file["name"] for file in trained.checkpoint["files"]}
    assert not list(tmp_path.glob("*.partial"))


def test_an_epoch_by_its_number_or_the_best_one(on_stack: Main, trained: Trained) -> None:
    assert on_stack("pull", f"{trained.job}@1").out == "tiny-test-epoch-1\n"
    assert on_stack("pull", f"{trained.job}@best").status == 0
    missing = on_stack("pull", f"{trained.job}@7")
    assert missing.status == 1
    assert "no checkpoint 7. Its epochs with a checkpoint: 1, 2." in missing.err
    assert on_stack("pull", f"{trained.job}@last").status == 1
    assert on_stack("pull", "job_of_nobody").status == 1


def test_what_is_there_is_verified_and_not_fetched_again(
    on_stack: Main, trained: Trained, starts: dict[str, list[int]]
) -> None:
    on_stack("pull", trained.job, "here")
    starts.clear()

    ended = on_stack("pull", trained.job, "here")

    assert ended.status == 0
    assert "there already" in ended.err
    assert starts == {}


def test_another_folder_is_not_overwritten(on_stack: Main, trained: Trained, tmp_path: Path) -> None:
    mine = tmp_path / "tiny-test-epoch-2"
    mine.mkdir()
    (mine / "model.safetensors").write_text("precious")

    ended = on_stack("pull", trained.job)

    assert ended.status == 1
    assert "holds something else" in ended.err
    assert (mine / "model.safetensors").read_text() == "precious"


def test_an_interrupted_download_goes_on_where_it_stopped(
    on_stack: Main, trained: Trained, starts: dict[str, list[int]], tmp_path: Path
) -> None:
    on_stack("pull", trained.job, "here")
    (tmp_path / "here").rename(tmp_path / "here.partial")
    weights = tmp_path / "here.partial" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (tmp_path / "here.partial" / "of-another-download").touch()
    starts.clear()

    ended = on_stack("pull", trained.job, "here")

    assert ended.status == 0
    assert starts == {"model.safetensors": [1000]}
    verify(tmp_path / "here", trained.checkpoint["files"])
    assert not (tmp_path / "here" / "of-another-download").exists()


def test_files_come_side_by_side(
    on_stack: Main, trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    download, both = Client.download, Barrier(2)
    largest = sorted(trained.checkpoint["files"], key=lambda file: -file["bytes"])[:2]

    @contextmanager
    def together(self: Client, path: str, *, start: int) -> Iterator[httpx.Response]:
        with download(self, path, start=start) as response:
            if path in [file["url"] for file in largest]:
                both.wait(60)
            yield response

    monkeypatch.setattr(Client, "download", together)
    assert on_stack("pull", trained.job, "here").status == 0
    verify(tmp_path / "here", trained.checkpoint["files"])


def test_a_connection_that_breaks_is_taken_up_again(
    on_stack: Main, trained: Trained, starts: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    iter_raw, whole = httpx.Response.iter_raw, list[bool]()

    def broken(self: httpx.Response, size: int | None = None) -> Iterator[bytes]:
        if whole or not self.url.path.endswith("model.safetensors"):
            yield from iter_raw(self, size)
            return
        whole.append(True)
        yield next(iter_raw(self, 1000))
        raise httpx.ReadError("the cable was pulled")

    monkeypatch.setattr(httpx.Response, "iter_raw", broken)
    assert on_stack("pull", trained.job, "here").status == 0
    assert starts["model.safetensors"] == [0, 1000]
    verify(tmp_path / "here", trained.checkpoint["files"])


def test_a_damaged_torso_is_fetched_anew(
    on_stack: Main, trained: Trained, starts: dict[str, list[int]], tmp_path: Path
) -> None:
    partial = tmp_path / "here.partial"
    shutil.copytree(trained.stored, partial)
    weights = partial / "model.safetensors"
    weights.write_bytes(b"x" * 1000)
    config = partial / "config.json"
    config.write_bytes(config.read_bytes() + b"too long")

    ended = on_stack("pull", trained.job, "here")

    assert ended.status == 0
    assert starts == {"model.safetensors": [1000, 0], "config.json": [0]}
    verify(tmp_path / "here", trained.checkpoint["files"])


def test_a_flipped_byte_is_refused(on_stack: Main, trained: Trained, tmp_path: Path) -> None:
    weights = trained.stored / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        ended = on_stack("pull", trained.job, "here")
    finally:
        weights.write_bytes(good)

    assert ended.status == 1
    assert "model.safetensors does not match its sha256" in ended.err
    assert not (tmp_path / "here").exists()
    assert on_stack("pull", trained.job, "here").status == 0


def test_a_name_that_leads_elsewhere_writes_nothing(
    on_stack: Main, trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = trained.checkpoint["files"][0] | {"name": "../escaped"}
    monkeypatch.setattr("cli.commands.pull.find_checkpoint", lambda *_: trained.checkpoint | {"files": [file]})

    ended = on_stack("pull", trained.job, "here")

    assert ended.status == 1
    assert "no plain name" in ended.err
    assert not (tmp_path / "escaped").exists()
