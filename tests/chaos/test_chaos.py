"""Chaos for a while: the same schedule each time in CI, a longer one every night; `make chaos` plays any for ten."""

import time
from pathlib import Path

import pytest

from tests.chaos.run import play

_TONIGHT = int(time.time() // 86_400)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("seconds", "jobs", "seed"),
    [(30, 5, 4), pytest.param(180, 24, _TONIGHT, marks=pytest.mark.nightly, id="tonight")],
)
def test_no_promise_is_broken_under_faults(tmp_path: Path, seconds: int, jobs: int, seed: int) -> None:
    print(f"make chaos SECONDS={seconds} JOBS={jobs} SEED={seed} plays it again")
    account = play(seconds=seconds, jobs=jobs, seed=seed, folder=tmp_path, say=print)
    print(account)
    assert account.clean
