"""Settings follow from the data directory, and a wrong one is named."""

from pathlib import Path

import pytest

from core.database import connect, migrate
from core.dispatch import celery_app
from core.errors import Unusable
from core.settings import Settings, load_settings
from core.store import open_store


def test_everything_follows_from_the_data_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EPOCHD_DATA_DIR", str(tmp_path / "d"))
    settings = load_settings()
    assert settings.database == f"sqlite:///{tmp_path}/d/epochd.sqlite3"
    assert settings.redis == f"unix://{tmp_path}/d/redis.sock"
    assert settings.store == f"file://{tmp_path}/d/store"
    assert settings.key_file == tmp_path / "d" / "key"
    assert settings.cache_dir == tmp_path / "d" / "cache"


def test_a_data_directory_may_have_an_odd_name(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "my data é 100%")
    engine = connect(settings.database)
    migrate(engine)
    engine.dispose()
    open_store(settings.store)
    assert (tmp_path / "my data é 100%" / "epochd.sqlite3").is_file()
    assert (tmp_path / "my data é 100%" / "store" / "incoming").is_dir()
    assert celery_app(settings.redis).conf.broker_url.startswith("redis+socket:///")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EPOCHD_PORT", "http"),
        ("EPOCHD_PORT", "65536"),
        ("EPOCHD_LEASE_SECONDS", "soon"),
        ("EPOCHD_MAX_BODY_BYTES", "1G"),
        ("EPOCHD_CACHE_MAX_BYTES", "-1"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Unusable, match=f"{name}: .*Correct"):
        load_settings()


def test_a_list_that_is_none_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPOCHD_ALLOWED_HOSTS", "example.org")
    with pytest.raises(Unusable, match=r'allowed_hosts.*EPOCHD_ALLOWED_HOSTS=\'\["localhost"\]\''):
        load_settings()


SHELTERED: list[dict[str, str]] = [
    {"EPOCHD_HOST": "127.0.0.1"},
    {"EPOCHD_HOST": "127.8.9.1"},
    {"EPOCHD_HOST": "::1"},
    {"EPOCHD_HOST": "localhost"},
    {"EPOCHD_HOST": "0.0.0.0", "EPOCHD_TLS_IN_FRONT": "true"},
    {"EPOCHD_REDIS_URL": "redis://127.0.0.1:6379/0"},
    {"EPOCHD_REDIS_URL": "unix:///run/redis.sock"},
    {"EPOCHD_REDIS_URL": "redis://:secret@redis:6379/0"},
    {"EPOCHD_REDIS_URL": "rediss://epochd:secret@redis.example.org/0"},
]
OPEN: list[dict[str, str]] = [
    {"EPOCHD_HOST": "0.0.0.0"},
    {"EPOCHD_HOST": "::"},
    {"EPOCHD_HOST": ""},
    {"EPOCHD_HOST": "10.0.0.7"},
    {"EPOCHD_HOST": "localhost.example.org"},
    {"EPOCHD_HOST": "0.0.0.0", "EPOCHD_TLS_IN_FRONT": "false"},
    {"EPOCHD_REDIS_URL": "redis://redis:6379/0"},
    {"EPOCHD_REDIS_URL": "redis://epochd@10.0.0.7:6379/0"},
    {"EPOCHD_REDIS_URL": "rediss://redis.example.org/0"},
]


@pytest.mark.parametrize("settings", SHELTERED)
def test_what_is_sheltered_may_start(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    load_settings()


@pytest.mark.parametrize("settings", OPEN)
def test_a_door_that_stands_open_is_refused(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unusable, match=next(iter(settings))):
        load_settings()
