"""Keys: who a request comes from. Only hashes are stored; a key is shown once, when it is made."""

import hmac
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from core.errors import Conflict, NotFound
from core.ids import new_id, secret_hash
from core.models import Key, Owner, utc_now
from core.ownership import Seer
from core.unit_of_work import UnitOfWork

SCOPES = ("read", "write", "admin")
FIRST_OWNER = "local"
_PREFIX_CHARACTERS = 8
_LAST_USE_EVERY = timedelta(minutes=1)


@dataclass(frozen=True)
class Caller:
    """Who asks: everything that a request makes is this owner's."""

    owner_id: str
    key_id: str
    scopes: frozenset[str]

    @property
    def sees(self) -> Seer:
        """Whose things this caller sees: its owner's, or with the scope `admin` everyone's."""
        return None if "admin" in self.scopes else self.owner_id


def create(
    session: Session, owner_name: str, scopes: list[str] | None = None, expires_at: datetime | None = None
) -> str:
    """Make a key for an owner, who is made too where the name is new, and return it: the one time it can be seen."""
    owner = session.exec(select(Owner).where(col(Owner.name) == owner_name)).one_or_none()
    if owner is None:
        owner = Owner(id=new_id("own"), name=owner_name)
        session.add(owner)
        session.flush()
    return _add(session, owner.id, scopes or ["read", "write"], expires_at)


def _add(session: Session, owner_id: str, scopes: list[str], expires_at: datetime | None) -> str:
    prefix, secret = secrets.token_hex(_PREFIX_CHARACTERS // 2), secrets.token_urlsafe(32)
    presented = f"epochd_{prefix}_{secret}"
    session.add(
        Key(
            id=new_id("key"),
            owner_id=owner_id,
            prefix=prefix,
            sha256=secret_hash(presented),
            scopes=scopes,
            expires_at=expires_at,
        )
    )
    return presented


def authenticate(session: Session, presented: str) -> Caller | None:
    """Return whose key this is, or None where it is unknown, revoked or expired."""
    parts = presented.split("_", 2)
    if len(parts) != 3 or parts[0] != "epochd":
        return None
    wanted = secret_hash(presented)
    for key in session.exec(select(Key).where(col(Key.prefix) == parts[1], col(Key.revoked_at).is_(None))):
        if hmac.compare_digest(key.sha256, wanted):
            return caller_of(key)
    return None


def caller_of(key: Key) -> Caller | None:
    """Return who has this key, or None where it is revoked or expired."""
    if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= utc_now()):
        return None
    return Caller(key.owner_id, key.id, frozenset(key.scopes))


def live(session: Session, key_ids: Iterable[str]) -> set[str]:
    """Return which of these keys still open something."""
    return {key.id for key in session.exec(select(Key).where(col(Key.id).in_(key_ids))) if caller_of(key)}


def used_lately(session: Session, key_id: str) -> bool:
    """Say whether the key's last use is recorded closely enough."""
    key = session.get(Key, key_id)
    return key is not None and key.last_used_at is not None and utc_now() - key.last_used_at < _LAST_USE_EVERY


def record_use(session: Session, key_id: str) -> None:
    """Write down that the key was used now."""
    if key := session.get(Key, key_id):
        key.last_used_at = utc_now()
        session.add(key)


def list_keys(session: Session) -> list[tuple[Key, str]]:
    """Return every key with its owner's name, oldest first."""
    query = select(Key, Owner.name).join(Owner, col(Owner.id) == col(Key.owner_id)).order_by(col(Key.id))
    return [(key, name) for key, name in session.exec(query)]


def revoke(session: Session, prefix: str) -> Key:
    """Make the key with this prefix useless from now on. Raises NotFound."""
    key = session.exec(select(Key).where(col(Key.prefix) == prefix, col(Key.revoked_at).is_(None))).one_or_none()
    if key is None:
        raise NotFound(f"There is no live key that starts with epochd_{prefix}. `epochd keys list` shows them.")
    key.revoked_at = utc_now()
    session.add(key)
    return key


def rotate(session: Session, prefix: str, key_file: Path) -> str:
    """Make a key that opens what the one with this prefix does, for as long, revoke that one, and return the new one.

    Where the old one lies in `key_file` the new one takes its place. Raises NotFound, and Conflict where the old one
    has expired.
    """
    old = revoke(session, prefix)
    if old.expires_at is not None and old.expires_at <= utc_now():
        raise Conflict(f"The key epochd_{prefix} has expired: make a new one with `epochd keys create`.")
    presented = _add(session, old.owner_id, old.scopes, old.expires_at)
    try:
        lies_there = key_file.read_text().startswith(f"epochd_{prefix}_")
    except FileNotFoundError:
        lies_there = False
    if lies_there:
        _leave(key_file, presented)
    return presented


def ensure_first_key(work: UnitOfWork, key_file: Path) -> str | None:
    """Make the first key where there is none at all, leave it in `key_file` (mode 0600), and return it."""
    try:
        with work.begin() as session:
            if session.exec(select(Key.id).limit(1)).first() is not None:
                return None
            presented = create(session, FIRST_OWNER, ["read", "write", "admin"])
            # Inside the transaction: a key that could not be left here was never made.
            _leave(key_file, presented)
    except IntegrityError:  # another process was making it at the same moment
        return None
    return presented


def _leave(key_file: Path, presented: str) -> None:
    key_file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        os.fchmod(descriptor, 0o600)
        stream.write(presented + "\n")
