"""Killed at each of the named places, the job ends as if nothing had been."""

import random
import re
import time
from pathlib import Path

import psutil
import pytest

from core.models import Dataset
from tests.faults.account import account
from tests.installation import LONG, Installation, trainers
from tests.services import wait_for

ROOT = Path(__file__).parents[2]
OF_THE_API = {"submit", "submitted", "bell"}


def _named(*folders: str) -> set[str]:
    sources = [path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return {name for source in sources for name in re.findall(r'\breach\("([^"]+)"\)', source)}


POINTS = sorted(_named("core", "worker", "app") - OF_THE_API)


# Others every day; `make nightly` takes them all.
TODAY = set(random.Random(time.time() // 86_400).sample(POINTS, 2))


@pytest.mark.parametrize(
    "point", [pytest.param(point, marks=[] if point in TODAY else [pytest.mark.nightly]) for point in POINTS]
)
def test_killed_there_it_goes_on_and_ends_in_the_same_bits(
    installation: Installation, dataset: Dataset, undisturbed_weights: str, tmp_path: Path, point: str
) -> None:
    once = tmp_path / "once"
    once.touch()
    with installation.worker(EPOCHD_FAILPOINT=f"{point}@{once}") as worker:
        job_id = installation.submit(dataset, **LONG)
        family = [worker, *worker.children(recursive=True)]
        wait_for(lambda: not once.exists(), seconds=90, what=f"the point {point!r}")
        if not point.startswith("trainer "):
            family += [child for child in worker.children(recursive=True) if child not in family]
            assert worker.wait(30) == -9
            psutil.wait_procs(family, timeout=30)
        else:
            installation.wait_for_status(job_id, "succeeded", "failed")
    wait_for(lambda: not any(process.ppid() == 1 for process in trainers()), what="the end of every orphan")
    with installation.worker():
        job = installation.wait_for_status(job_id, "succeeded", "failed")
    assert job.attempt <= 2
    account(installation, job_id, undisturbed_weights)


def test_there_are_some_twenty_of_them_and_each_stands_once() -> None:
    assert len(POINTS) >= 19
    sources = "".join(
        path.read_text() for folder in ("core", "worker", "app") for path in (ROOT / folder).rglob("*.py")
    )
    for point in [*POINTS, *OF_THE_API]:
        assert sources.count(f'reach("{point}")') == 1, point
