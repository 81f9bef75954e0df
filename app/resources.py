"""What requests are served with: opened once when the API starts, closed once when it ends."""

from dataclasses import dataclass, field

import anyio
import sqlalchemy as sa

from app.live import Feeds
from app.telemetry import Telemetry
from app.watchers import Watchers
from core.database import connect, schema_state
from core.dispatch import Bell
from core.errors import Unusable
from core.live_log import LiveLog
from core.settings import Settings
from core.store import Store, open_store
from core.unit_of_work import UnitOfWork

# Looking through an upload is pure computing: more at once would only starve the requests that need a moment.
_INSPECTIONS_AT_ONCE = 2
# As many more begin while their file still comes in: they mostly wait for it.
_EARLY_LOOKS_AT_ONCE = 2
# So is looking at data before it is trained on, each time in a process of its own.
_LOOKS_AT_ONCE = 2


@dataclass(frozen=True)
class Resources:
    """The ways to the database, Redis and the store, and the feeds of watched jobs."""

    settings: Settings
    engine: sa.Engine
    live_log: LiveLog
    work: UnitOfWork
    store: Store
    feeds: Feeds
    watchers: Watchers
    telemetry: Telemetry
    inspections: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(_INSPECTIONS_AT_ONCE))
    early_looks: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(_EARLY_LOOKS_AT_ONCE))
    looks: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(_LOOKS_AT_ONCE))

    async def close(self) -> None:
        """Let go of everything."""
        self.watchers.close()
        await self.feeds.aclose()
        self.live_log.close()
        self.engine.dispose()


def open_resources(settings: Settings) -> Resources:
    """Open everything. Raises Unusable, with a sentence that says what to do, where that cannot work."""
    engine = connect(settings.database)
    _check_schema(engine)
    live_log = LiveLog(settings.redis)
    work = UnitOfWork(engine, live_log, Bell(settings.redis))
    telemetry = Telemetry()
    feeds = Feeds(work, settings.redis, telemetry.traffic.heard)
    telemetry.look_at(work, feeds)
    return Resources(
        settings=settings,
        engine=engine,
        live_log=live_log,
        work=work,
        store=open_store(settings.store),
        feeds=feeds,
        watchers=Watchers(work, settings.max_watchers_per_key),
        telemetry=telemetry,
    )


def _check_schema(engine: sa.Engine) -> None:
    try:
        state = schema_state(engine)
    except sa.exc.OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise Unusable(f"The database does not answer ({reason}). Start it, or correct EPOCHD_DATABASE_URL.") from error
    if state == "older":
        raise Unusable("The database's tables are not those of this version of epochd: migrate it (`epochd up` does).")
    if state == "newer":
        raise Unusable("The database was written by a newer version of epochd: install that version again.")
