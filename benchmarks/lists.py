"""How long a page of a long list of jobs takes over HTTP, on SQLite and on PostgreSQL.

    python -m benchmarks.lists --jobs 100000

Fills a database with jobs of one owner (9 of 10; the rest are another's) in every state, with common and rare tags,
and then asks for pages as people do: the first, the next ones, by status, by tag, by both; the latter also where few or
none of many match. Prints the median and the 99th percentile of each question, one client asking at a time.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.installation import DATABASES, Installation, installation, percentile, settle
from core import keys
from core.ids import new_id
from core.models import Job, JobTag, Owner, utc_now

_STATES = {"succeeded": 60, "failed": 14, "cancelled": 10, "queued": 10, "paused": 6}
_ROWS_AT_ONCE = 2000


def fill(installed: Installation, count: int) -> None:
    """Store copies of a job that the API has made, older and older."""
    template = installed.job(installed.dataset(), tags={"team": "docs"})
    work, chance = installed.work, random.Random(0)
    with work.begin() as session:
        keys.create(session, "another")
        session.flush()
        other = session.execute(sa.select(Owner.id).where(Owner.name == "another")).scalar_one()
        row = session.get_one(Job, template).model_dump()
    copies = _copies(row, count, other, chance)
    while rows := list(islice(copies, _ROWS_AT_ONCE)):
        with work.begin() as session:
            session.execute(sa.insert(Job), [job for job, _ in rows])
            tags = [
                {"job_id": job["id"], "owner_id": job["owner_id"], "tag": tag, "status": job["status"]}
                for job, tagged in rows
                for tag in tagged
            ]
            session.execute(sa.insert(JobTag), tags)
    settle(installed)


def _copies(
    row: dict[str, Any], count: int, other: str, chance: random.Random
) -> Iterator[tuple[dict[str, Any], list[str]]]:
    now = utc_now()
    for age in range(count):
        made = now - timedelta(minutes=age + 1)
        status = chance.choices(list(_STATES), list(_STATES.values()))[0]
        job = row | {"id": new_id("job", made), "created_at": made, "status": status, "priority": chance.randrange(3)}
        if age % 10 == 9:
            job["owner_id"] = other
        # One team of ten; a run that only the oldest job belongs to; and a tag that no queued job has.
        tags = [f"team:{chance.randrange(10)}", *(["run:first"] if age == count - 2 else [])]
        yield job, tags + ([] if status == "queued" else ["seen:yes"])


QUESTIONS: dict[str, dict[str, str]] = {
    "all": {},
    "by status, common": {"status": "succeeded"},
    "by status, queued": {"status": "queued"},
    "by status, none match": {"status": "running"},
    "by tag, common": {"tag": "team:3"},
    "by tag, of one old job": {"tag": "run:first"},
    "by status and tag": {"status": "failed", "tag": "team:3"},
    "by status and tag, none of many": {"status": "queued", "tag": "seen:yes"},
}


def ask(installed: Installation, question: dict[str, str], pages: int) -> list[float]:
    """Ask for the first page and the next ones, over and over, and return the milliseconds of each answer."""
    took, cursor = list[float](), None
    for _ in range(pages):
        params = question | ({"cursor": cursor} if cursor else {})
        started = time.perf_counter()
        answer = installed.client.get("/jobs", params=params)
        took.append((time.perf_counter() - started) * 1000)
        cursor = answer.raise_for_status().json()["next_cursor"]
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--pages", type=int, default=300, help="of each question")
    parser.add_argument("--database", choices=DATABASES, nargs="*", default=DATABASES)
    asked = parser.parse_args()
    for database in asked.database:
        with tempfile.TemporaryDirectory() as folder, installation(database, Path(folder)) as installed:
            fill(installed, asked.jobs)
            ask(installed, {}, 20)
            print(f"{asked.jobs:,} jobs on {database}:")
            for name, question in QUESTIONS.items():
                took = ask(installed, question, asked.pages)
                print(
                    f"  {name:34} median {percentile(took, 50):6.1f} ms   99 % {percentile(took, 99):6.1f} ms",
                    flush=True,
                )


if __name__ == "__main__":
    main()
