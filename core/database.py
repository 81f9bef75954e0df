"""The SQL database: SQLite or PostgreSQL behind one engine, one clock and one way to begin a transaction."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic_core import from_json
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import Session

from alembic import command
from core.errors import Unusable

# The database, or the way to it, is away for now: the same call can succeed later.
OUTAGES = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError)

_POSTGRESQL_TIMEOUTS = {
    "statement_timeout": 30_000,
    "lock_timeout": 10_000,
    # Who is frozen, or whose machine is lost, in the middle of a transaction would keep its locks: a job's row among
    # them, and with it the job, which nobody else could take up.
    "idle_in_transaction_session_timeout": 10_000,
}


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware UTC time. SQLite keeps it as text that sorts by time; PostgreSQL as timestamptz."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        """Refuse a time without a zone; SQLite is given UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        """Return UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class database_now(FunctionElement[datetime]):
    """The database's own clock, `seconds` from now: the one clock that leases are measured with.

    On PostgreSQL `clock_timestamp()`, since `now()` stands still inside a transaction.
    """

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(sa.literal(float(seconds)))


@compiles(database_now, "postgresql")
def _now_on_postgresql(element: database_now, compiler: Any, **kw: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **kw)}))"


@compiles(database_now, "sqlite")
def _now_on_sqlite(element: database_now, compiler: Any, **kw: Any) -> str:
    # The form that SQLAlchemy stores: microseconds, so that text comparison is time comparison.
    seconds = compiler.process(element.clauses, **kw)
    return f"(strftime('%Y-%m-%d %H:%M:%f000', 'now', ({seconds}) || ' seconds'))"


def connect(url: str) -> sa.Engine:
    """Return an engine for `url`, of SQLite or PostgreSQL. Raises Unusable for any other."""
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise Unusable("EPOCHD_DATABASE_URL is not a database URL. Use sqlite:///PATH or postgresql://…") from error
    match parsed.get_backend_name():
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            engine = sa.create_engine(parsed, connect_args={"timeout": 30}, json_deserializer=_from_json)
            sa.event.listen(engine, "connect", _prepare_sqlite)
            sa.event.listen(engine, "begin", _begin_sqlite)
            return engine
        case "postgresql":
            options = " ".join(f"-c {name}={milliseconds}" for name, milliseconds in _POSTGRESQL_TIMEOUTS.items())
            engine = sa.create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                pool_pre_ping=True,
                json_deserializer=_from_json,
                connect_args={"connect_timeout": 5, "options": options},
            )
            sa.event.listen(engine, "handle_error", _lost_session_as_outage, retval=True)
            return engine
        case other:
            raise Unusable(f"EPOCHD_DATABASE_URL names {other}; epochd runs on sqlite:///PATH or postgresql://…")


def _from_json(text: str | bytes) -> Any:
    """Read a column. A page of jobs has hundreds of them, and Python's own reader takes several times as long."""
    try:
        return from_json(text)
    except ValueError:  # half of a surrogate pair, which Python's can hold
        return json.loads(text)


def _lost_session_as_outage(context: sa.engine.ExceptionContext) -> sa.exc.OperationalError | None:
    """Make one error of all that tell of a lost session: the driver calls some of them internal."""
    error = context.sqlalchemy_exception
    if not context.is_disconnect or error is None or isinstance(error, sa.exc.OperationalError):
        return None
    return sa.exc.OperationalError(
        context.statement, error.params, context.original_exception, connection_invalidated=True
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's "begin" below decides, not the driver
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A deferred transaction that reads and then writes fails at once where another wrote in between, whatever the
    # timeout. One that only reads must not wait for the writer.
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


@contextmanager
def reading(engine: sa.Engine) -> Iterator[Session]:
    """A session that sees one moment of the database, waits for no writer, and is rolled back at the end."""
    options: dict[str, Any] = {"read_only": True}
    if engine.dialect.name == "postgresql":
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with engine.connect().execution_options(**options) as connection, Session(connection) as session:
        yield session


def _migrations() -> Path:
    inside = Path(__file__).parent / "alembic"  # an installed epochd
    return inside if inside.is_dir() else Path(__file__).parent.parent / "alembic"


def _alembic_config(engine: sa.Engine) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_migrations()))
    config.attributes["engine"] = engine
    return config


def migrate(engine: sa.Engine) -> None:
    """Bring the tables to this version's shape.

    Raises Unusable where a newer epochd made the database: going back could lose what it wrote.
    """
    if engine.dialect.name == "sqlite" and engine.url.database:
        Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
    if schema_state(engine) == "newer":
        raise Unusable(
            "This data was written by a newer version of epochd. Install that version again, or name another "
            "data directory with EPOCHD_DATA_DIR."
        )
    command.upgrade(_alembic_config(engine), "head")


def schema_state(engine: sa.Engine) -> str:
    """Say how the tables compare with this version: `current`, `older` (or absent) or `newer`."""
    scripts = ScriptDirectory.from_config(_alembic_config(engine))
    with engine.connect() as connection:
        heads = MigrationContext.configure(connection).get_current_heads()
    known = {script.revision for script in scripts.walk_revisions()}
    if not set(heads) <= known:
        return "newer"
    return "current" if set(heads) == set(scripts.get_heads()) else "older"
