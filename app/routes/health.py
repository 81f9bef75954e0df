"""Whether the process is alive, and whether what it needs is there."""

import sqlalchemy as sa
import structlog
from fastapi import APIRouter, Response

from app.dependencies import Reader, TheResources
from app.openapi import problems
from app.resources import Resources
from app.schemas import Alive, PartState, Readiness

_log = structlog.get_logger()

router = APIRouter(tags=["service"])

_OK = PartState(state="ok")


@router.get("/healthz", operation_id="healthz", summary="Alive", openapi_extra={"security": []})
async def alive() -> Alive:
    """Answer; the one route without a key."""
    return Alive(status="ok")


@router.get(
    "/readyz",
    operation_id="readyz",
    summary="Ready: the database, Redis and the store, each with its state",
    responses={**problems(), 503: {"model": Readiness, "description": "Not ready."}},
)
def ready(response: Response, _: Reader, resources: TheResources) -> Readiness:
    """Look at each part. Without Redis the API works all the same."""
    database, store = _database(resources), _store(resources)
    redis = (
        _OK
        if resources.live_log.alive()
        else PartState(state="unreachable", detail="the API works; live events and idle workers are slower")
    )
    if database is not _OK or store is not _OK:
        response.status_code, status = 503, "unavailable"
    else:
        status = "ready" if redis is _OK else "degraded"
    return Readiness(status=status, database=database, redis=redis, store=store)


def _database(resources: Resources) -> PartState:
    try:
        with resources.work.reading() as session:
            session.execute(sa.text("SELECT 1"))
    except sa.exc.SQLAlchemyError as error:
        _log.warning("database_unreachable", reason=str(error).splitlines()[0])
        return PartState(state="unreachable", detail="the database does not answer")
    return _OK


def _store(resources: Resources) -> PartState:
    try:
        with resources.store.incoming() as path:
            path.touch()
    except OSError as error:
        return PartState(state="unwritable", detail=error.strerror)
    return _OK
