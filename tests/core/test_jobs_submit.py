"""Submitting, finding and listing jobs: one job for each key, and nothing of another owner's to be seen."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import sqlalchemy as sa
from sqlmodel import select

from core import datasets, job_queries, jobs, submission
from core.errors import InvalidInput, NotFound
from core.job_spec import JobSpec
from core.job_states import JobStatus
from core.models import Job
from tests.house import House


def test_a_job_starts_queued_with_its_spec_filled_in_and_its_first_event(house: House) -> None:
    job = house.submit(name="mine", tags={"team": "docs"}, priority=3)
    read = house.job(job.id)
    assert (read.status, read.fence, read.attempt, read.failures, read.max_failures) == ("queued", 0, 0, 0, 3)
    assert JobSpec.model_validate(read.spec) == house.spec(name="mine", tags={"team": "docs"}, priority=3)
    assert [(str(event.cursor), event.type) for event in house.log(job.id)] == [("0-1", "submitted")]


def test_a_known_key_gives_the_job_that_it_made(house: House) -> None:
    with house.work.begin() as session:
        first, new = house.submit_in(session, key="k", sha256="a")
    assert new
    with house.work.begin() as session:
        again, new = house.submit_in(session, key="k", sha256="a")
    assert (again.id, new) == (first.id, False)
    assert house.told(first.id) == ["submitted"]
    assert house.submit().id != house.submit().id, "no key, no memory"


def test_a_key_cannot_be_used_for_another_request(house: House) -> None:
    first = house.submit(key="k", sha256="a")
    with pytest.raises(InvalidInput, match=first.id):
        house.submit(key="k", sha256="b")


def test_another_owner_s_key_is_another_key(house: House) -> None:
    first = house.submit(key="k")
    other = House(house.work)
    assert other.submit(key="k").id != first.id


def test_the_same_key_at_once_makes_one_job(house: House) -> None:
    start = Barrier(8)

    def submit(_: int) -> str:
        start.wait()
        try:
            return house.submit(key="k").id
        except sa.exc.IntegrityError:  # another was quicker: the caller looks again, as the API does
            return house.submit(key="k").id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(submit, range(8)))
    with house.work.reading() as session:
        assert set(session.exec(select(Job.id))) == ids
    assert len(ids) == 1
    assert house.told(ids.pop()) == ["submitted"]


def test_a_dry_run_stores_nothing(house: House) -> None:
    with house.work.begin() as session:
        plan = submission.prepare(session, house.owner_id, house.spec(), house.limits).plan
    assert plan.parameters
    with house.work.reading() as session:
        assert session.exec(select(Job.id)).all() == []


def test_what_does_not_exist_is_named_by_its_field(house: House) -> None:
    stranger = House(house.work)
    theirs = stranger.running()
    stranger.publish(theirs, 1)
    mine = house.running()
    cases = [
        ({"dataset": "ds_none"}, ("dataset",)),
        ({"dataset": stranger.dataset_id}, ("dataset",)),
        ({"validation": {"dataset": "ds_none"}}, ("validation", "dataset")),
        ({"validation": {"dataset": stranger.dataset_id}}, ("validation", "dataset")),
        ({"model": {"checkpoint": {"job": "job_none"}}}, ("model", "checkpoint")),
        ({"model": {"checkpoint": {"job": theirs.job_id}}}, ("model", "checkpoint")),
        ({"model": {"checkpoint": {"job": mine.job_id}}}, ("model", "checkpoint")),
        ({"model": {"checkpoint": {"job": mine.job_id, "epoch": 10_000}}}, ("model", "checkpoint")),
    ]
    for fields, loc in cases:
        with pytest.raises(InvalidInput) as caught:
            house.submit(**fields)
        assert [fault.loc for fault in caught.value.faults] == [loc], fields


def test_latest_and_best_become_a_number(house: House) -> None:
    claim = house.running()
    house.publish(claim, 1, validation_loss=1.0)
    house.publish(claim, 2, validation_loss=2.0)
    for asked, epoch in (("latest", 2), ("best", 1), (2, 2)):
        job = house.submit(model={"checkpoint": {"job": claim.job_id, "epoch": asked}})
        assert job.spec["model"]["checkpoint"]["epoch"] == epoch
        assert job.plan["parameters"] == house.job(claim.job_id).plan["parameters"]


def test_a_foreign_job_and_dataset_look_unknown(house: House) -> None:
    job = house.submit()
    stranger = house.new_owner()
    with house.work.reading() as session:
        for get, id_ in ((job_queries.get, job.id), (datasets.get, house.dataset_id)):
            with pytest.raises(NotFound) as foreign:
                get(session, stranger, id_)
            with pytest.raises(NotFound) as unknown:
                get(session, stranger, "xyz")
            assert foreign.value.detail.replace(id_, "xyz") == unknown.value.detail
        assert job_queries.page(session, stranger, limit=10, before=None, status=None, tag=None) == []
        assert datasets.page(session, stranger, limit=10, before=None) == []
    with pytest.raises(NotFound), house.work.begin() as session:
        jobs.request_cancel(session, stranger, job.id)
    assert house.job(job.id).status == "queued"


def test_pages_are_complete_newest_first_and_filtered(house: House) -> None:
    made = [house.submit(tags={"n": str(number % 2)}).id for number in range(7)]
    newest_first = sorted(made, reverse=True)
    House(house.work).submit(tags={"n": "0"})
    house.cancel(made[3])

    def pages(status: JobStatus | None = None, tag: str | None = None) -> list[str]:
        found: list[str] = []
        with house.work.reading() as session:
            while page := job_queries.page(
                session, house.owner_id, limit=2, before=found[-1] if found else None, status=status, tag=tag
            ):
                assert len(page) <= 2
                found += [job.id for job in page]
        return found

    odd = {made[1], made[3], made[5]}
    assert pages() == newest_first
    assert pages(tag="n:1") == [id_ for id_ in newest_first if id_ in odd]
    assert pages(status=JobStatus.CANCELLED) == [made[3]]
    assert pages(status=JobStatus.QUEUED, tag="n:1") == [id_ for id_ in newest_first if id_ in odd - {made[3]}]
    assert pages(tag="n") == pages(tag="n:9") == []


def test_tags_that_read_alike_are_one(house: House) -> None:
    job = house.submit(tags={"a": "b:c", "a:b": "c"})
    with house.work.reading() as session:
        found = job_queries.page(session, house.owner_id, limit=9, before=None, status=None, tag="a:b:c")
    assert [one.id for one in found] == [job.id]
    assert found[0].spec["tags"] == {"a": "b:c", "a:b": "c"}


def test_the_queue_position_is_the_place_in_the_order_of_claims(house: House) -> None:
    queued = [house.submit(priority=priority) for priority in (0, 5, 0, -5, 5)]
    with house.work.reading() as session:
        places = {place: job_id for job_id, place in job_queries.queue_positions(session, queued).items()}
    claims = [house.claim() for _ in queued]
    assert [places[place] for place in range(1, 6)] == [claim.job_id for claim in claims if claim]
    with house.work.reading() as session:
        assert job_queries.queue_positions(session, [session.get_one(Job, queued[0].id)]) == {}
