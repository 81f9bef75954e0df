"""Some minutes of chaos: the same schedule each time in CI, another one every night; `make chaos` plays any for ten."""

import time
from pathlib import Path

import pytest

from tests.chaos.run import play

_TONIGHT = int(time.time() // 86_400)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [4, pytest.param(_TONIGHT, marks=pytest.mark.nightly, id="tonight")])
def test_no_promise_is_broken_under_faults(tmp_path: Path, seed: int) -> None:
    print(f"make chaos SECONDS=75 JOBS=12 SEED={seed} plays it again")
    account = play(seconds=75, jobs=12, seed=seed, folder=tmp_path, say=print)
    print(account)
    assert account.clean
