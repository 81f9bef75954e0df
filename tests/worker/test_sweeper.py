"""What is swept from the store, and above all what is not."""

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import select

from core import checkpoints, jobs, refusals, tokenizers, uploads
from core.jobs import Claim
from core.models import Checkpoint, Tokenizer, Upload
from core.store import Store
from core.tokenizer_files import Checked
from tests.house import LOST, House
from worker import sweeper


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The store's folder."""
    return tmp_path / "store"


def _lay(store: Store, key: str) -> None:
    with store.incoming() as folder:
        for part in ("model", "state"):
            (folder / part).mkdir(parents=True)
            (folder / part / "file").write_text("x")
        store.adopt(folder, key)


def _published(house: House, store: Store, claim: Claim, step: int, *, state: bool = True) -> Checkpoint:
    row = house.publish(claim, step, state=state)
    _lay(store, checkpoints.store_key(row))
    return row


def _files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def _make_old(folder: Path) -> None:
    long_ago = time.time() - 3600
    for path in folder.rglob("*"):
        os.utime(path, (long_ago, long_ago))


def test_a_writer_killed_in_the_middle_leaves_nothing_for_long(house: House, store: Store, root: Path) -> None:
    program = (
        "import sys, pathlib; from core.store import open_store\n"
        "with open_store(sys.argv[1]).incoming() as path:\n"
        "    path.mkdir(); (path / 'half').write_text('x'); print('here', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, root.as_uri()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        writer.stdout.readline()
        _make_old(root / "incoming")
        sweeper.sweep(house.work, store, house.limits)
        assert len(_files(root)) == 2, "its writer lives, however long that takes"
        writer.kill()
        writer.wait()
        sweeper.sweep(house.work, store, house.limits)
    assert _files(root) == set()
    assert list((root / "incoming").iterdir()) == []


def test_what_nobody_holds_yet_is_left_alone_while_it_is_young(house: House, store: Store, root: Path) -> None:
    (root / "incoming" / "in_new").write_text("its writer is about to lock it")
    sweeper.sweep(house.work, store, house.limits)
    assert "incoming/in_new" in _files(root)
    _make_old(root)
    sweeper.sweep(house.work, store, house.limits)
    assert _files(root) == set()


def test_a_checkpoint_that_was_never_listed_goes_once_its_fence_is_gone(house: House, store: Store, root: Path) -> None:
    claim = house.running()
    listed = _published(house, store, claim, 1)
    unlisted = f"checkpoints/{claim.job_id}/{claim.fence}-2"
    _lay(store, unlisted)
    before = _files(root)
    sweeper.sweep(house.work, store, house.limits)
    assert _files(root) == before, "its holder may be about to list it"
    house.do(jobs.lose, claim.job_id, claim.fence, LOST)
    sweeper.sweep(house.work, store, house.limits)
    assert _files(root) == {path for path in before if not path.startswith(unlisted)}
    assert store.fetch(checkpoints.store_key(listed)).is_dir()


def test_a_training_state_that_retention_gave_up_goes_and_its_model_stays(
    house: House, store: Store, root: Path
) -> None:
    row = _published(house, store, house.running(), 1, state=False)
    sweeper.sweep(house.work, store, house.limits)
    assert _files(root) == {f"{checkpoints.store_key(row)}/model/file"}


def test_what_an_older_database_does_not_know_of_is_left_alone(house: House, store: Store, root: Path) -> None:
    claim = house.running()
    for key in (
        f"checkpoints/{claim.job_id}/{claim.fence + 4}-9",  # of a fence that this database has not reached
        "checkpoints/job_none/1-1",
        f"checkpoints/{claim.job_id}/1-1.damaged",
        "datasets/ds_none",
    ):
        _lay(store, key)
    before = _files(root)
    house.do(jobs.lose, claim.job_id, claim.fence, LOST)
    sweeper.sweep(house.work, store, house.limits)
    assert _files(root) == before


def test_a_new_hold_finds_nothing_under_its_fence_and_all_else_where_it_was(
    house: House, store: Store, root: Path
) -> None:
    first = house.running()
    _published(house, store, first, 1)
    house.do(jobs.lose, first.job_id, first.fence, LOST)
    second = house.claim()
    assert second
    folder = f"checkpoints/{first.job_id}"
    others = [f"{folder}/{first.fence}-2", f"{folder}/{second.fence}-1.damaged", f"{folder}/{second.fence}0-1"]
    for key in [*others, f"checkpoints/job_other/{second.fence}-1"]:
        _lay(store, key)
    before = _files(root)
    for step in (1, 2):  # written before the database was restored from an older backup
        _lay(store, f"{folder}/{second.fence}-{step}")
    sweeper.clear_fence(second, store)
    assert _files(root) == before


def test_a_deleted_job_leaves_neither_files_nor_rows(house: House, store: Store, root: Path) -> None:
    gone, kept = house.running(), house.running()
    for claim in (gone, kept):
        _published(house, store, claim, 1)
    house.do(jobs.fail, gone, LOST)
    house.do(jobs.delete, house.owner_id, gone.job_id)
    sweeper.remove_deleted_jobs(house.work, store)
    assert all(path.startswith(f"checkpoints/{kept.job_id}/") for path in _files(root))
    assert house.checkpoints(gone.job_id) == []
    assert len(house.checkpoints(kept.job_id)) == 1
    assert store.names(checkpoints.folder_key(gone.job_id)) == []


def _upload(house: House, store: Store, name: str) -> str:
    """Begin an upload and send some of it."""
    what = uploads.Announcement(filename=name, bytes=10, sha256="0" * 64)
    upload, _ = house.do(uploads.announce, house.owner_id, what, house.limits)
    key = uploads.store_key(upload.id)
    store.grow(key)
    store.extend(key, b"some", offset=0)
    return str(upload.id)


def _left_alone(house: House, upload_id: str) -> None:
    with house.work.begin() as session:
        upload = session.get_one(Upload, upload_id)
        upload.touched_at -= timedelta(seconds=house.limits.upload_keep_seconds + 60)
        session.add(upload)


def test_an_upload_that_nobody_goes_on_with_goes(house: House, store: Store, root: Path) -> None:
    young, left, slow = (_upload(house, store, f"{name}.txt") for name in ("young", "left", "slow"))
    for upload_id in (left, slow):
        _left_alone(house, upload_id)
    long_ago = time.time() - house.limits.upload_keep_seconds - 60
    os.utime(root / uploads.store_key(left), (long_ago, long_ago))
    store.grow("uploads/up_unknown")
    sweeper.sweep(house.work, store, house.limits)
    assert _files(root) == {f"uploads/{name}" for name in (young, slow, "up_unknown")}, "slow is still being written"
    os.utime(root / "uploads/up_unknown", (long_ago, long_ago))
    sweeper.sweep(house.work, store, house.limits)
    assert _files(root) == {f"uploads/{name}" for name in (young, slow)}
    with house.work.reading() as session:
        assert {upload.id for upload in session.exec(select(Upload))} == {young, slow}


def test_a_refusal_goes_when_its_day_is_over(house: House, store: Store, root: Path) -> None:
    ids = []
    for _ in range(2):
        with store.incoming() as findings:
            findings.write_text("{}")
            ids.append(refusals.add(store, house.owner_id, findings))
    long_ago = time.time() - house.limits.upload_keep_seconds - 60
    os.utime(refusals.get(store, house.owner_id, ids[0]), (long_ago, long_ago))
    sweeper.sweep(house.work, store, house.limits)
    assert _files(root) == {f"refusals/{house.owner_id}/{ids[1]}"}


def test_the_file_of_a_deleted_tokenizer_goes_although_its_deleter_died(house: House, store: Store, root: Path) -> None:
    checked = Checked(format="tokenizer.json", vocab_size=10, end_of_text="<eod>", lossless=True)
    named = {"filename": "tokenizer.json", "size": 2, "sha256": "0" * 64, "checked": checked, "store": store}
    ids = []
    for _ in range(2):  # the same bytes may come again
        with store.incoming() as file:
            file.write_text("{}")
            ids.append(str(house.do(tokenizers.add, house.owner_id, file=file, **named).id))
        if len(ids) == 1:
            house.do(tokenizers.remove, house.owner_id, ids[0])
    assert [row.id for row in house.do(tokenizers.page, house.owner_id, limit=9, before=None)] == ids[1:]
    assert _files(root) == {f"tokenizers/{name}" for name in ids}
    sweeper.sweep(house.work, store, house.limits)
    assert _files(root) == {f"tokenizers/{ids[1]}"}
    with house.work.reading() as session:
        assert [row.id for row in session.exec(select(Tokenizer))] == ids[1:]
