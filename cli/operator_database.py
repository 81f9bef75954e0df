"""The database as its operator reaches it, without a server in between: to migrate it, and to make the first keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from core.database import connect, migrate, schema_state
from core.dispatch import Bell
from core.errors import Unusable
from core.live_log import LiveLog
from core.settings import Settings
from core.unit_of_work import UnitOfWork


def bring_up_to_date(settings: Settings) -> None:
    """Make or migrate the tables. Raises Unusable where a newer epochd made them, or no database answers."""
    with _engine(settings) as engine:
        migrate(engine)


@contextmanager
def opened(settings: Settings) -> Iterator[UnitOfWork]:
    """The way into a database whose tables are this version's. Raises Unusable where they are not."""
    with _engine(settings) as engine:
        file = engine.url.database
        if engine.dialect.name == "sqlite" and file and not Path(file).exists():
            raise Unusable(f"There is no database at {file} yet: `epochd up` makes it.")
        if (state := schema_state(engine)) != "current":
            raise Unusable(
                "The database is of an older version of epochd: run `epochd migrate` first."
                if state == "older"
                else "The database was written by a newer version of epochd: use that version."
            )
        yield UnitOfWork(engine, LiveLog(settings.redis), Bell(settings.redis))


@contextmanager
def _engine(settings: Settings) -> Iterator[sa.Engine]:
    engine = connect(settings.database)
    try:
        yield engine
    except sa.exc.OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise Unusable(f"The database does not answer: {reason}. Check EPOCHD_DATABASE_URL.") from error
    finally:
        engine.dispose()
