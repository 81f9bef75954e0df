"""`epochd keys`: an operator's commands. They work on the database itself, so they need no key."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from cli.screen import answer, note, table
from core.errors import InvalidInput
from core.settings import load_settings

# What these commands stand on takes a second to import: commands that only speak HTTP must not wait for it, so it is
# imported where it is used.

app = typer.Typer(no_args_is_help=True, help="Make, list, revoke and rotate keys (on the server's machine).")

_SPAN = re.compile(r"(\d{1,5})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@app.command()
def create(
    owner: Annotated[str, typer.Option(help="Whose jobs and datasets the key opens; made where the name is new.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="read, write or admin; give it several times. Default: read and write.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="How long it lives: 12h, 30d, 8w. Default: for ever.")] = None,
) -> None:
    """Make a key and print it, alone on its line: the one time it can be seen."""
    from cli.operator_database import opened  # noqa: PLC0415 - see above
    from core import keys  # noqa: PLC0415 - see above

    if not owner.strip():
        raise InvalidInput("An owner needs a name: --owner NAME.")
    if wrong := [name for name in scope or [] if name not in keys.SCOPES]:
        raise InvalidInput(f"There is no scope {wrong[0]!r}: a scope is one of {', '.join(keys.SCOPES)}.")
    expires_at = _end_of(expires) if expires else None
    with opened(load_settings()) as work, work.begin() as session:
        key = keys.create(session, owner, scope, expires_at)
    answer(key)


@app.command("list")
def list_() -> None:
    """List every key: its prefix, never the key itself."""
    from cli.operator_database import opened  # noqa: PLC0415 - see above
    from core import keys  # noqa: PLC0415 - see above

    with opened(load_settings()) as work, work.reading() as session:
        found = keys.list_keys(session)
    table(
        ["PREFIX", "OWNER", "SCOPES", "STATE", "LAST USE"],
        [
            [key.prefix, owner, " ".join(key.scopes), _state(key.revoked_at, key.expires_at), _day(key.last_used_at)]
            for key, owner in found
        ],
    )


@app.command()
def revoke(prefix: Annotated[str, typer.Argument(help="As `epochd keys list` shows it.")]) -> None:
    """Make a key useless from now on."""
    from cli.operator_database import opened  # noqa: PLC0415 - see above
    from core import keys  # noqa: PLC0415 - see above

    with opened(load_settings()) as work, work.begin() as session:
        keys.revoke(session, prefix.removeprefix("epochd_"))
    note(f"The key epochd_{prefix.removeprefix('epochd_')}… opens nothing any more.")


@app.command()
def rotate(prefix: Annotated[str, typer.Argument(help="As `epochd keys list` shows it.")]) -> None:
    """Put a new key in the place of one, and print it, alone on its line; the old one opens nothing any more."""
    from cli.operator_database import opened  # noqa: PLC0415 - see above
    from core import keys  # noqa: PLC0415 - see above

    settings = load_settings()
    with opened(settings) as work, work.begin() as session:
        key = keys.rotate(session, prefix.removeprefix("epochd_"), settings.key_file)
    answer(key)


def _end_of(span: str) -> datetime:
    match = _SPAN.fullmatch(span)
    if not match or int(match[1]) == 0:
        raise InvalidInput(f"--expires {span!r} is no length of time: write 12h, 30d or 8w.")
    return datetime.now(UTC) + timedelta(**{_UNITS[match[2]]: int(match[1])})


def _state(revoked_at: datetime | None, expires_at: datetime | None) -> str:
    if revoked_at:
        return f"revoked {_day(revoked_at)}"
    if expires_at is None:
        return "live"
    return f"{'expired' if expires_at < datetime.now(UTC) else 'live until'} {_day(expires_at)}"


def _day(moment: datetime | None) -> str | None:
    return moment.strftime("%Y-%m-%d %H:%M") if moment else None
