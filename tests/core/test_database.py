"""One engine for two databases: its clock, its transactions, and what it refuses."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from sqlmodel import Session, select

from core.database import OUTAGES, connect, database_now, reading
from core.errors import Unusable
from core.models import Key, Owner
from core.unit_of_work import UnitOfWork
from tests.services import PostgresServer


@pytest.mark.parametrize(
    "url",
    ["", "x", "mysql://host/x", "postgresql://host:port/x", "postgresql://[::1/x", "sqlite://", "sqlite:///:memory:"],
)
def test_what_is_no_database_of_ours_is_refused_by_the_setting_s_name(url: str) -> None:
    with pytest.raises(Unusable, match=r"EPOCHD_DATABASE_URL.*sqlite:///PATH or postgresql://"):
        connect(url)


def test_the_clock_is_the_database_s_and_goes_on_within_a_transaction(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        first = connection.scalar(select(database_now()))
        second = first
        while second == first:
            second = connection.scalar(select(database_now()))
        later = connection.scalar(select(database_now(3600)))
        earlier = connection.scalar(select(database_now(-0.5)))
    assert first
    assert first.utcoffset() == timedelta(0)
    assert abs(first - datetime.now(UTC)) < timedelta(minutes=1)
    assert second > first
    assert timedelta(minutes=59) < later - second < timedelta(minutes=61)
    assert earlier < second


def test_times_are_compared_as_times(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        for seconds in (-1.0, -0.001, 0.0):
            assert connection.scalar(select(database_now(seconds) < database_now(seconds + 0.01)))


def test_a_time_comes_back_in_utc_whatever_its_zone_and_needs_one(work: UnitOfWork) -> None:
    moment = datetime(2026, 3, 1, 23, 30, 0, 123456, tzinfo=timezone(timedelta(hours=-5)))
    with work.begin() as session:
        session.add(Owner(id="own_1", name="me", created_at=moment))
    with work.reading() as session:
        read = session.get_one(Owner, "own_1").created_at
    assert read == moment
    assert read.isoformat() == "2026-03-02T04:30:00.123456+00:00"
    with pytest.raises(sa.exc.StatementError, match="without a zone"), work.begin() as session:
        session.add(Owner(id="own_2", name="you", created_at=moment.replace(tzinfo=None)))


def test_a_reader_sees_one_moment_and_waits_for_no_writer(engine: sa.Engine, work: UnitOfWork) -> None:
    with work.begin() as session:
        session.add(Owner(id="own_1", name="one"))
    with Session(engine) as writer, reading(engine) as reader:
        writer.add(Owner(id="own_2", name="two"))
        writer.flush()
        assert len(reader.exec(select(Owner.id)).all()) == 1
        writer.commit()
        assert len(reader.exec(select(Owner.id)).all()) == 1
    with reading(engine) as reader:
        assert len(reader.exec(select(Owner.id)).all()) == 2


def test_transactions_that_read_and_then_write_all_get_through(work: UnitOfWork) -> None:
    # Deferred transactions of SQLite would fail here, whatever the timeout: writers begin at once.
    def add(number: int) -> None:
        with work.begin() as session:
            there = len(session.exec(select(Owner.id)).all())
            session.add(Owner(id=f"own_{number}", name=f"{number}-{there}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(80)))
    with work.reading() as session:
        assert len(session.exec(select(Owner.id)).all()) == 80


def test_foreign_keys_hold_on_both(work: UnitOfWork) -> None:
    with pytest.raises(sa.exc.IntegrityError), work.begin() as session:
        session.add(Key(id="key_1", owner_id="own_none", prefix="p", sha256="s", scopes=[]))


def test_who_falls_silent_in_a_transaction_loses_what_it_locked(postgres: PostgresServer) -> None:
    url = postgres.new_database("silent", like="template_epochd")
    engine, patient = connect(url), sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    lock = sa.text("SELECT pg_advisory_xact_lock(1)")

    def fall_silent() -> None:
        with engine.begin() as silent:
            silent.execute(lock)
            with patient.begin() as other:
                other.execute(lock)

    with pytest.raises(OUTAGES):
        fall_silent()
    with engine.begin() as recovered:
        recovered.execute(lock)
    engine.dispose()
    patient.dispose()
    postgres.drop_database("silent")
