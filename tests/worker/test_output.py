"""What a trainer writes is kept within bounds, line by line."""

import os

import pytest

from core import jobs, trainer_output
from core.trainer_output import KEPT_ATTEMPTS
from tests.house import LOST, House
from worker.output import KEPT_CHARACTERS, Output, OutputKeeper


def _output_of(*written: bytes) -> Output:
    """Return the output of a trainer that wrote this and ended."""
    theirs, ours = os.pipe()
    output = Output()
    output.read(os.fdopen(theirs, "rb"))
    for part in written:
        os.write(ours, part)
    os.close(ours)
    output.finish(10)
    return output


@pytest.mark.parametrize(
    ("written", "lines", "text"),
    [
        ([b"one\ntwo\n"], 2, "one\ntwo"),
        ([b"one\r\ntw", b"o"], 2, "one\ntwo"),
        ([b" 10 %\r 90 %\r\ndone\n"], 2, " 90 %\ndone"),
        (["schl\u00fcssel\n".encode()[:6], "schl\u00fcssel\n".encode()[6:]], 1, "schl\u00fcssel"),
        ([b"\xff\x00\x1b[2Jx\n"], 1, "\ufffd\ufffd\ufffd[2Jx"),
        ([b"\n\n"], 2, "\n"),
        ([], 0, ""),
    ],
)
def test_lines_are_kept_as_they_can_be_shown(written: list[bytes], lines: int, text: str) -> None:
    assert _output_of(*written).end() == (lines, text)


def test_the_end_is_kept_whatever_is_written() -> None:
    lines, text = _output_of(*(b"%d\n" % n * 1000 for n in range(40)), b"x" * 10**6, b"\nlast\n").end()
    assert text.endswith("\nlast")
    assert len(text) <= KEPT_CHARACTERS
    assert lines > 40_000


def test_output_is_written_for_the_last_attempts_and_goes_with_the_job(house: House) -> None:
    claim = house.running(max_failures=2 * KEPT_ATTEMPTS)
    for attempt in range(1, KEPT_ATTEMPTS + 3):
        keeper = OutputKeeper(claim, _output_of(b"attempt %d\n" % attempt), house.work)
        keeper.keep()
        keeper.keep()
        house.do(jobs.lose, claim.job_id, claim.fence, LOST)
        claim = house.claim() or pytest.fail("the job is queued again")
    kept = [(row.attempt, row.lines, row.text) for row in house.do(trainer_output.of_job, claim.job_id)]
    assert kept == [(n, 1, f"attempt {n}") for n in range(KEPT_ATTEMPTS + 2, 2, -1)]
    house.do(jobs.fail, claim, LOST)
    house.do(jobs.delete, house.owner_id, claim.job_id)
    OutputKeeper(claim, _output_of(b"too late\n"), house.work).keep()
    assert len(house.do(trainer_output.of_job, claim.job_id)) == KEPT_ATTEMPTS
