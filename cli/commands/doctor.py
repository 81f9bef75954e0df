"""`epochd doctor`: what an installation stands on, and what to do where that is not well."""

import typer

from cli.screen import answer, note
from core.settings import load_settings

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


def doctor() -> None:
    """Check database, clock, queue, Redis, store, files, disk and GPU; say what to do. Status 1 where one failed."""
    from cli.checkup import Health, examine  # noqa: PLC0415 - a second to import

    ill = False
    for finding in examine(load_settings()):
        answer(f"{finding.health:8} {finding.piece:9} {finding.words}")
        if finding.advice:
            note(f"{'':18} {finding.advice}", _STYLES[finding.health])
        ill |= finding.health is Health.ILL
    if ill:
        raise typer.Exit(1)
