"""Keys: shown once, stored as a hash, good until they expire or are revoked."""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from core import keys
from core.errors import NotFound
from core.keys import Caller
from core.models import Key
from core.unit_of_work import UnitOfWork


def _create(work: UnitOfWork, owner: str = "me", **how: object) -> str:
    with work.begin() as session:
        return keys.create(session, owner, **how)  # type: ignore[arg-type]


def _who(work: UnitOfWork, presented: str) -> Caller | None:
    with work.reading() as session:
        return keys.authenticate(session, presented)


def test_a_key_tells_its_owner_and_its_scopes(work: UnitOfWork) -> None:
    mine, mine_too, yours = _create(work), _create(work, scopes=["read"]), _create(work, "you")
    callers = [_who(work, key) for key in (mine, mine_too, yours)]
    assert all(callers)
    first, second, third = (caller for caller in callers if caller)
    assert first.owner_id == second.owner_id != third.owner_id
    assert first.key_id != second.key_id
    assert (first.scopes, second.scopes) == (frozenset({"read", "write"}), frozenset({"read"}))


def test_a_key_is_never_stored(work: UnitOfWork) -> None:
    key = _create(work)
    secret = key.split("_", 2)[2]
    assert len(secret) >= 43, "256 random bits"
    with work.engine.connect() as connection:
        for table in SQLModel.metadata.tables.values():
            for row in connection.execute(sa.select(table)):
                assert secret not in str(row)
                assert secret[:12] not in str(row)
    assert _create(work) != key


def test_only_the_whole_key_opens(work: UnitOfWork) -> None:
    key = _create(work)
    prefix = key.split("_")[1]
    wrong = [
        "",
        "epochd",
        "epochd_",
        f"epochd_{prefix}_",
        f"epochd_{prefix}",
        key[:-1],
        key + "x",
        key.upper(),
        f" {key}",
    ]
    wrong += [key.replace("epochd", "other"), f"epochd_{prefix}_{_create(work).split('_', 2)[2]}", "_" * 50]
    for presented in wrong:
        assert _who(work, presented) is None, presented


def test_an_expired_key_is_no_key(work: UnitOfWork) -> None:
    now = datetime.now(UTC)
    assert _who(work, _create(work, expires_at=now + timedelta(hours=1)))
    assert _who(work, _create(work, expires_at=now - timedelta(seconds=1))) is None


def test_a_revoked_key_is_no_key_and_the_others_stay(work: UnitOfWork) -> None:
    key, other = _create(work), _create(work)
    prefix = key.split("_")[1]
    with work.begin() as session:
        assert keys.revoke(session, prefix).revoked_at
    assert _who(work, key) is None
    assert _who(work, other)
    for unknown in (prefix, "00000000x"):
        with pytest.raises(NotFound, match="no live key"), work.begin() as session:
            keys.revoke(session, unknown)


def test_a_use_is_recorded_once_a_minute(work: UnitOfWork) -> None:
    caller = _who(work, _create(work))
    assert caller
    with work.begin() as session:
        assert not keys.used_lately(session, caller.key_id)
        keys.record_use(session, caller.key_id)
    with work.begin() as session:
        assert keys.used_lately(session, caller.key_id)
        key = session.get_one(Key, caller.key_id)
        assert key.last_used_at
        key.last_used_at -= timedelta(minutes=2)
    with work.reading() as session:
        assert not keys.used_lately(session, caller.key_id)


def test_all_keys_are_listed_with_their_owners(work: UnitOfWork) -> None:
    for owner in ("b", "a", "b"):
        _create(work, owner)
    with work.reading() as session:
        listed = keys.list_keys(session)
    assert [name for _, name in listed] == [name for _, name in sorted(listed, key=lambda item: item[0].id)]
    assert sorted(name for _, name in listed) == ["a", "b", "b"]


def test_the_first_key_lies_in_its_file_for_its_owner_alone_and_is_made_once(work: UnitOfWork, tmp_path: Path) -> None:
    file = tmp_path / "data" / "key"
    before = os.umask(0)
    try:
        key = keys.ensure_first_key(work, file)
    finally:
        os.umask(before)
    assert key
    assert file.read_text() == key + "\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    caller = _who(work, key)
    assert caller
    assert caller.scopes == {"read", "write", "admin"}
    assert keys.ensure_first_key(work, file) is None
    assert file.read_text() == key + "\n"


def test_a_file_that_lay_open_is_closed(work: UnitOfWork, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("an old and much longer content than any key has\n" * 10)
    file.chmod(0o644)
    key = keys.ensure_first_key(work, file)
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == (f"{key}\n", 0o600)


def test_a_key_that_cannot_be_left_was_never_made(work: UnitOfWork, tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(IsADirectoryError):
        keys.ensure_first_key(work, tmp_path / "key")
    with work.reading() as session:
        assert keys.list_keys(session) == []
    assert keys.ensure_first_key(work, tmp_path / "other")
