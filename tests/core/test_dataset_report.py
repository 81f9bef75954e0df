"""Numbers over many rows in little memory: lengths by spans, and which rows are there twice."""

import random

import pytest

from core import dataset_report
from core.dataset_report import Report, Tally


def _told(lengths_and_rows: list[tuple[int, object]], **fields: int) -> Report:
    report, tally = Report(**fields), Tally()
    for start in range(0, len(lengths_and_rows), 1000):
        some = lengths_and_rows[start : start + 1000]
        tally.add(report, [length for length, _ in some], [hash(content) for _, content in some])
    tally.tell(report)
    return report


def test_lengths_fall_into_spans_of_doubling_width() -> None:
    report = _told([(length, length) for length in (0, 1, 2, 3, 4, 7, 8, 1000)])
    assert report.lengths == [
        {"from": 0, "to": 0, "rows": 1},
        {"from": 1, "to": 1, "rows": 1},
        {"from": 2, "to": 3, "rows": 2},
        {"from": 4, "to": 7, "rows": 2},
        {"from": 8, "to": 15, "rows": 1},
        {"from": 512, "to": 1023, "rows": 1},
    ]
    assert (report.characters, report.tokens) == (1025, None)
    of_ids = _told([(3, (1, 2, 3))], largest_id=3)
    assert (of_ids.characters, of_ids.tokens) == (None, 3)


def test_rows_that_repeat_an_earlier_one_are_counted() -> None:
    report = _told([(1, text) for text in "abcabca"])
    assert (report.duplicate_rows, report.duplicates_are_estimated) == (4, False)


def test_of_very_many_rows_the_share_that_repeats_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_report, "_REMEMBERED_ROWS", 2000)
    rows = [f"row {number}" for number in range(20_000)] * 2
    random.Random(0).shuffle(rows)
    report = _told([(1, row) for row in rows])
    assert report.duplicates_are_estimated
    # A few thousand are looked at: by chance the estimate is off by a few percent.
    assert 15_000 < report.duplicate_rows < 25_000
