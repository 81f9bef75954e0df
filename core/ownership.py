"""Whose rows a request sees: one owner's, or everyone's."""

from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.orm import Mapped

# An owner's id; None sees everyone's.
Seer = str | None


class _Owned(Protocol):
    owner_id: str


def sees(seer: Seer, row: _Owned) -> bool:
    """Say whether a row is one that the seer sees."""
    return seer is None or row.owner_id == seer


def seen_by(seer: Seer, owner_id: Mapped[str]) -> sa.ColumnElement[bool]:
    """Return the condition on the column of owners under which the seer sees a row."""
    return sa.true() if seer is None else owner_id == seer
