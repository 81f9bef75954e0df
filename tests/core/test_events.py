"""The log of record: in order, written once, and read back as the very bytes that went out live."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import events, jobs
from core.errors import InvalidInput
from core.events import START, Cursor, Event
from core.models import utc_now
from tests.house import House

BATCH = {
    "epoch": 1,
    "batch": 3,
    "step": 2,
    "loss": 0.1 + 0.2,
    "accuracy": 1.0,
    "learning_rate": 1e-07,
    "tokens": 2**31 - 1,
}
AWKWARD: list[tuple[str, dict[str, Any]]] = [
    ("batch", BATCH),
    ("batch", BATCH | {"loss": None, "accuracy": None}),
    ("batch", BATCH | {"grad_norm": 5e-324, "tokens_per_second": 1.7976931348623157e308}),
    # The gradient of a window was not finite: grad_norm is there, and null.
    ("batch", BATCH | {"grad_norm": None, "tokens_per_second": 1.5}),
    ("epoch", {"epoch": 1, "loss": 2.5, "validation_loss": None, "perplexity": 1e300, "z": 1, "a": 2}),
    ("sample", {"prompt": "", "text": 'NUL \x00, quote ", line\u2028, é, 漢, 😀, \\, \x1f'}),
    ("warning", {"code": "x", "message": "m", "nested": {"list": [1, 2.0, None, True], "empty": {}}}),
    ("preparing", {}),
    ("plan", {"big": 2**63, "small": -(10**30)}),
]


def test_what_sql_gives_back_is_byte_for_byte_what_went_out_live(house: House) -> None:
    claim = house.running()
    made = [Event(Cursor(claim.fence, seq), kind, utc_now(), data) for seq, (kind, data) in enumerate(AWKWARD, start=2)]
    house.do(jobs.record, claim, made)
    read = house.log(claim.job_id)[2:]
    assert [event.to_json() for event in read] == [event.to_json() for event in made]
    house.work.live_log.publish(claim.job_id, made)  # as it goes out


def test_a_line_is_one_line_with_the_time_in_utc_to_the_microsecond() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    line = Event(Cursor(2, 1042), "sample", at, {"text": "a\nb é"}).to_json()
    assert line == '{"id":"2-1042","type":"sample","at":"2026-01-02T02:04:05.000000Z","data":{"text":"a\\nb é"}}'


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_json_has_no_nan(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Event(Cursor(1, 1), "batch", datetime.now(UTC), {"loss": number}).to_json()


@given(st.integers(0, 10**9 - 1), st.integers(0, 10**18 - 1))
def test_a_cursor_is_read_as_it_is_written(fence: int, seq: int) -> None:
    assert Cursor.parse(str(Cursor(fence, seq))) == (fence, seq)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "1",
        "1-",
        "-1",
        "1-2-3",
        "1--2",
        "+1-2",
        "1-+2",
        " 1-2",
        "1-2 ",
        "1-2\n",
        "1_0-2",
        "0x1-2",
        "1.0-2",
        "1-2e3",
        "a-b",
        "\N{ARABIC-INDIC DIGIT ONE}-2",
        "²-1",
        "\N{FULLWIDTH DIGIT ONE}-2",
        "1\x00-2",
        "10000000000-1",
        "1-" + "9" * 19,
        "9" * 5000 + "-1",
        "$",
        "*",
    ],
)
def test_what_is_no_cursor_is_refused_shortly(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Cursor.parse(text)
    assert len(caught.value.detail) < 400


def test_the_greatest_cursor_can_be_asked_for(house: House) -> None:
    job = house.submit()
    with house.work.reading() as session:
        for cursor in (Cursor(10**9 - 1, 10**18 - 1), Cursor(0, 10**18 - 1)):
            assert events.read(session, job.id, cursor, 10) == []


def test_the_log_is_read_in_order_from_behind_the_cursor_and_by_the_page(house: House) -> None:
    claim = house.running()
    cursors = [Cursor(claim.fence, seq) for seq in (11, 2, 10, 9, 3)]
    house.do(jobs.record, claim, [Event(cursor, "warning", utc_now(), {}) for cursor in cursors])
    house.do(jobs.stop, claim, "drained")
    whole = [(0, 1), (1, 1), (1, 2), (1, 3), (1, 9), (1, 10), (1, 11), (2, 1)]
    assert [event.cursor for event in house.log(claim.job_id)] == whole
    house.submit()  # another job's events do not show
    with house.work.reading() as session:
        for place, cursor in enumerate([START, *map(Cursor._make, whole)]):
            assert [e.cursor for e in events.read(session, claim.job_id, cursor, 3)] == whole[place : place + 3]
        assert [e.cursor for e in events.read(session, claim.job_id, Cursor(1, 5), 2)] == [(1, 9), (1, 10)]
        newest = events.newest(session, claim.job_id)
        assert newest
        assert newest.cursor == (2, 1)
        assert events.newest(session, "job_none") is None


def test_what_is_there_stays_as_it_is_when_a_write_is_repeated(house: House) -> None:
    claim = house.running()
    first = Event(Cursor(claim.fence, 2), "warning", utc_now(), {"n": 1})
    house.do(jobs.record, claim, [first])
    changed = Event(first.cursor, "sample", utc_now(), {"n": 2})
    following = Event(Cursor(claim.fence, 3), "warning", utc_now(), {"n": 3})
    house.do(jobs.record, claim, [changed, following])
    assert [event.to_json() for event in house.log(claim.job_id)[2:]] == [first.to_json(), following.to_json()]
    house.do(jobs.record, claim, [])


def test_an_event_of_each_end_is_terminal_and_no_other() -> None:
    kinds = ["submitted", "started", "batch", "requeued", "succeeded", "failed", "cancelled"]
    ends = [kind for kind in kinds if Event(START, kind, utc_now(), {}).terminal]
    assert ends == ["succeeded", "failed", "cancelled"]
    assert json.loads(Event(START, "x", utc_now(), {}).to_json())["data"] == {}
