"""Published checkpoints: which is the best, which is found, which stay."""

import math

import pytest
from sqlmodel import Session

from core import checkpoints, jobs
from core.errors import NotFound
from core.jobs import Claim
from tests.house import House, a_checkpoint


def _best(house: House, claim: Claim) -> list[int]:
    return [row.step for row in house.checkpoints(claim.job_id) if row.best]


def test_the_best_is_by_validation_loss_and_by_training_loss_only_where_none_has_one(house: House) -> None:
    claim = house.running()
    for step, loss, validation_loss, best in [
        (1, None, None, 1),
        (2, math.nan, None, 2),  # nothing is known of either: the newest
        (3, 5.0, None, 3),
        (4, 6.0, None, 3),
        (5, math.inf, None, 3),
        (6, 9.0, 8.0, 6),
        (7, 0.1, None, 6),
        (8, 0.1, math.nan, 6),
        (9, 0.1, math.inf, 6),
        (10, 9.0, 7.5, 10),
        (11, 1.0, 7.6, 10),
        (12, 9.0, 7.5, 12),  # as good, and newer
    ]:
        house.publish(claim, step, loss=loss, validation_loss=validation_loss)
        assert _best(house, claim) == [best], step


def test_found_by_epoch_latest_and_best(house: House) -> None:
    claim = house.running()
    with house.work.reading() as session, pytest.raises(NotFound, match="latest"):
        checkpoints.find(session, claim.job_id, "latest")
    for step, epoch, validation_loss in ((10, 1, 1.0), (15, 2, None), (20, 2, 3.0)):
        house.publish(claim, step, epoch=epoch, validation_loss=validation_loss)
    other = house.running()
    house.publish(other, 99, epoch=3)

    def found(session: Session, epoch: object) -> int:
        return checkpoints.find(session, claim.job_id, epoch).step  # type: ignore[arg-type]

    with house.work.reading() as session:
        assert [found(session, epoch) for epoch in (1, 2, "latest", "best")] == [10, 20, 20, 10]
        for missing in (3, 2**31 - 1):
            with pytest.raises(NotFound, match=f"no checkpoint {missing}"):
                found(session, missing)


def test_after_a_resume_the_newest_run_of_a_step_is_meant(house: House) -> None:
    first = house.running()
    house.publish(first, 10)
    house.do(jobs.stop, first, "drained")
    second = house.claim()
    assert second
    house.publish(second, 10)
    with house.work.reading() as session:
        found = checkpoints.find(session, first.job_id, 10)
        assert (found.fence, checkpoints.store_key(found)) == (3, f"checkpoints/{first.job_id}/3-10")
    assert [(row.step, row.fence) for row in house.checkpoints(first.job_id)] == [(10, 3), (10, 1)]


def test_retention_keeps_the_newest_and_the_best_and_two_states(house: House) -> None:
    claim = house.running()
    for step in range(1, 8):
        house.publish(claim, step, validation_loss=0.5 if step == 2 else 1.0)
    with house.work.begin() as session:
        gone = checkpoints.retire(session, claim.job_id, keep=3)
    key = f"checkpoints/{claim.job_id}/1-"
    assert sorted(gone) == [f"{key}1", f"{key}2/state", f"{key}3", f"{key}4", f"{key}5/state"]
    left = house.checkpoints(claim.job_id)
    assert [(row.step, bool(row.state_files)) for row in left] == [(7, True), (6, True), (5, False), (2, False)]
    with house.work.reading() as session:
        assert [row.step for row in checkpoints.resumable(session, claim.job_id)] == [7, 6]
        newest = checkpoints.newest_resumable(session, claim.job_id)
        assert newest
        assert newest.step == 7
    with house.work.begin() as session:
        assert checkpoints.retire(session, claim.job_id, keep=3) == [], "once is enough"


def test_keeping_one_keeps_the_newest_and_the_best(house: House) -> None:
    claim = house.running()
    for step, loss in ((1, 0.1), (2, 1.0), (3, 1.0)):
        house.publish(claim, step, loss=loss)
    with house.work.begin() as session:
        assert f"checkpoints/{claim.job_id}/1-2" in checkpoints.retire(session, claim.job_id, keep=1)
    assert [row.step for row in house.checkpoints(claim.job_id)] == [3, 1]


@pytest.mark.parametrize(("asked", "step"), [("latest", 3), ("best", 2), (1, 3)])
def test_a_job_goes_on_from_the_very_checkpoint_it_named_and_retention_spares_it(
    house: House, asked: object, step: int
) -> None:
    claim = house.running()
    for published, loss in ((1, 5.0), (2, 1.0), (3, 4.0)):
        house.publish(claim, published, epoch=1, loss=loss)
    child = house.submit(model={"checkpoint": {"job": claim.job_id, "epoch": asked}})
    for published in (4, 5):  # of the same epoch, and better than any before
        house.publish(claim, published, epoch=1, loss=0.5)

    def kept() -> list[int]:
        house.do(checkpoints.retire, claim.job_id, 1)
        return [row.step for row in house.checkpoints(claim.job_id)]

    assert kept() == [5, step]
    with house.work.reading() as session:
        assert checkpoints.at(session, child.base_checkpoint or "").step == step
    house.cancel(child.id)
    assert kept() == [5]
    with house.work.reading() as session, pytest.raises(NotFound, match="no longer there"):
        checkpoints.at(session, child.base_checkpoint or "")


def test_without_a_state_nothing_can_go_on(house: House) -> None:
    claim = house.running()
    house.publish(claim, 1, state=False)
    with house.work.reading() as session:
        assert checkpoints.newest_resumable(session, claim.job_id) is None
        assert checkpoints.is_published(session, claim.job_id, 1)
        assert not checkpoints.is_published(session, claim.job_id, 2)


def test_a_damaged_best_gives_way_to_the_next_best(house: House) -> None:
    claim = house.running()
    for step, loss in ((1, 2.0), (2, 1.0), (3, 3.0)):
        house.publish(claim, step, validation_loss=loss)
    for damaged, best in ((2, [1]), (1, [3]), (3, [])):
        row = next(row for row in house.checkpoints(claim.job_id) if row.step == damaged)
        house.do(checkpoints.remove, row)
        assert _best(house, claim) == best


def test_a_listing_whose_commit_was_in_doubt_can_be_repeated(house: House) -> None:
    claim = house.running()
    for _ in range(2):
        house.publish(claim, 1)
    assert [row.step for row in house.checkpoints(claim.job_id)] == [1]


def test_a_row_says_what_its_folder_holds(house: House) -> None:
    row = a_checkpoint(house.running(), 1)
    assert (row.bytes, len(row.files), len(row.state_files), len(row.manifest_sha256)) == (4, 1, 1, 64)
