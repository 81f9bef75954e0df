"""`epochd up`, `epochd migrate`: running a server."""

from contextlib import suppress

from cli.screen import answer
from cli.stop_signals import StopSignals
from core.settings import load_settings

# What these commands stand on takes a second to import: commands that only speak HTTP must not wait for it.


def up() -> None:
    """Start the local stack: Redis, the API and a worker, in one terminal.

    Everything lives in EPOCHD_DATA_DIR (.epochd).

    Ctrl-C saves what is running and stops everything. Started again, it goes on with it.
    """
    from cli.local_stack import run  # noqa: PLC0415 - a second to import

    run(load_settings(), _say, StopSignals())


def migrate() -> None:
    """Bring the database to this version's tables. `epochd up` does it by itself."""
    from cli.operator_database import bring_up_to_date  # noqa: PLC0415 - a second to import

    bring_up_to_date(load_settings())
    answer("The database is up to date.")


def _say(text: str) -> None:
    # In `epochd up | tee log` a Ctrl-C ends tee too; without a listener there is still a job to save.
    with suppress(SystemExit, OSError):
        answer(text)
