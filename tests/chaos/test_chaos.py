"""Three minutes of chaos with another schedule every day; `make chaos` plays ten, with any."""

import time
from pathlib import Path

import pytest

from tests.chaos.run import play


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_no_promise_is_broken_under_faults(tmp_path: Path) -> None:
    seed = int(time.time() // 86_400)
    print(f"make chaos SECONDS=75 JOBS=12 SEED={seed} plays it again")
    account = play(seconds=75, jobs=12, seed=seed, folder=tmp_path, say=print)
    print(account)
    assert account.clean
