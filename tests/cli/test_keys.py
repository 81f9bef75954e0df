"""`epochd keys`: made, listed and revoked on the database itself."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.operator_database import opened
from core import keys
from core.settings import Settings
from tests.cli.conftest import Main


@pytest.fixture
def migrated(epochd: Main, tmp_path: Path) -> Settings:
    assert epochd("migrate").status == 0
    return Settings(data_dir=tmp_path / "data")


def test_a_key_stands_alone_on_its_line_and_opens_what_it_should(epochd: Main, migrated: Settings) -> None:
    ended = epochd("keys", "create", "--owner", "docs team", "--scope", "read", "--expires", "30d")

    assert ended.status == 0
    assert re.fullmatch(r"epochd_[0-9a-f]{8}_\S+\n", ended.out)
    with opened(migrated) as work, work.reading() as session:
        caller = keys.authenticate(session, ended.out.strip())
        [(key, owner)] = keys.list_keys(session)
    assert caller
    assert caller.scopes == {"read"}
    assert owner == "docs team"
    assert key.expires_at
    assert abs(key.expires_at - datetime.now(UTC) - timedelta(days=30)) < timedelta(minutes=5)


def test_a_key_is_listed_by_its_prefix_and_revoked_by_it(epochd: Main, migrated: Settings) -> None:
    key = epochd("keys", "create", "--owner", "docs").out.strip()
    prefix = key.split("_")[1]

    listed = epochd("keys", "list").out
    assert f"{prefix}  docs   read write  live" in listed
    assert key not in listed

    assert epochd("keys", "revoke", prefix).status == 0

    assert "revoked" in epochd("keys", "list").out
    with opened(migrated) as work, work.reading() as session:
        assert keys.authenticate(session, key) is None
    again = epochd("keys", "revoke", prefix)
    assert again.status == 1
    assert "no live key" in again.err


def test_a_rotated_key_opens_nothing_and_its_successor_all_that_it_did(epochd: Main, migrated: Settings) -> None:
    old = epochd("keys", "create", "--owner", "docs", "--scope", "read", "--expires", "30d").out.strip()
    ended = epochd("keys", "rotate", old.split("_")[1])

    assert ended.status == 0
    new = ended.out.strip()
    with opened(migrated) as work, work.reading() as session:
        assert keys.authenticate(session, old) is None
        caller = keys.authenticate(session, new)
        (before, owner), (after, same) = keys.list_keys(session)
    assert caller
    assert (caller.scopes, owner) == ({"read"}, same)
    assert before.expires_at == after.expires_at
    again = epochd("keys", "rotate", old.split("_")[1])
    assert (again.status, "no live key" in again.err) == (1, True)


def test_the_key_that_the_command_line_finds_is_rotated_in_its_place(epochd: Main, migrated: Settings) -> None:
    with opened(migrated) as work:
        first = keys.ensure_first_key(work, migrated.key_file)
    assert first
    other = epochd("keys", "create", "--owner", "docs").out.strip()
    assert epochd("keys", "rotate", other.split("_")[1]).status == 0
    assert migrated.key_file.read_text().strip() == first
    new = epochd("keys", "rotate", first.split("_")[1]).out.strip()
    assert new != first
    assert migrated.key_file.read_text() == new + "\n"
    assert migrated.key_file.stat().st_mode & 0o777 == 0o600


def test_an_expired_key_is_not_brought_back_by_rotation(epochd: Main, migrated: Settings) -> None:
    with opened(migrated) as work, work.begin() as session:
        key = keys.create(session, "docs", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    ended = epochd("keys", "rotate", key.split("_")[1])
    assert (ended.status, "has expired" in ended.err) == (1, True)
    assert epochd("keys", "list").out.count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--owner", "docs", "--scope", "everything"], "no scope 'everything'"),
        (["--owner", "docs", "--expires", "soon"], "no length of time"),
        (["--owner", "docs", "--expires", "0d"], "no length of time"),
        (["--owner", " "], "needs a name"),
    ],
)
@pytest.mark.usefixtures("migrated")
def test_nonsense_is_refused(epochd: Main, arguments: list[str], sentence: str) -> None:
    ended = epochd("keys", "create", *arguments)

    assert ended.status == 1
    assert sentence in ended.err
    assert epochd("keys", "list").out.count("\n") == 1  # the headings


def test_without_a_database_it_says_how_to_get_one(epochd: Main, tmp_path: Path) -> None:
    ended = epochd("keys", "list")

    assert ended.status == 1
    assert "`epochd up` makes it" in ended.err
    assert not (tmp_path / "data").exists()


def test_an_unreachable_database_is_one_sentence(epochd: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHD_DATABASE_URL", "postgresql://epochd@127.0.0.1:9/epochd")

    ended = epochd("keys", "list")

    assert ended.status == 1
    assert "The database does not answer" in ended.err
    assert "Traceback" not in ended.err
