"""A database that fails at a chosen moment, in the library's own places."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session


def _cut(*_: Any) -> None:
    raise sa.exc.OperationalError("", None, ConnectionError("the link was cut"))


@contextmanager
def away(engine: sa.Engine) -> Iterator[None]:
    """The database is away: no transaction begins."""
    # Not by an event: other threads go through its listeners meanwhile.
    engine.dialect.do_begin = _cut  # type: ignore[method-assign]  # which is the point
    try:
        yield
    finally:
        del engine.dialect.do_begin


@contextmanager
def commits_fail() -> Iterator[None]:
    """The link is cut before a commit reaches the database: it is rolled back."""
    with _cutting("before_commit"):
        yield


@contextmanager
def commits_are_in_doubt() -> Iterator[None]:
    """The link is cut after a commit reached the database: it stands, and the client does not know."""
    with _cutting("after_commit"):
        yield


@contextmanager
def _cutting(moment: str) -> Iterator[None]:
    sa.event.listen(Session, moment, _cut)
    try:
        yield
    finally:
        sa.event.remove(Session, moment, _cut)
