"""What a route can ask for by name: who calls, and what serves the call."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Header, Query
from pydantic import AfterValidator, BeforeValidator, Field
from starlette.requests import HTTPConnection

from app.errors import Forbidden, Unauthenticated
from app.live import Feeds
from app.resources import Resources
from app.watchers import Watchers
from core import events, job_queries, keys, tickets
from core.errors import InvalidInput, NotFound
from core.events import START, Cursor, Event
from core.job_states import JobStatus
from core.keys import Caller
from core.settings import Settings
from core.store import Store
from core.strict import Text
from core.unit_of_work import UnitOfWork

# A key is far shorter; what is not even of its form need not be looked up.
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_ID = re.compile(r"^[0-9A-Za-z_-]{1,64}$", re.ASCII)


# What waits for nothing is async: all else is run in a thread, and getting there takes longer than most of it.
async def _resources(connection: HTTPConnection) -> Resources:
    resources: Resources = connection.app.state.resources
    return resources


TheResources = Annotated[Resources, Depends(_resources)]


async def _work(resources: TheResources) -> UnitOfWork:
    return resources.work


async def _store(resources: TheResources) -> Store:
    return resources.store


async def _feeds(resources: TheResources) -> Feeds:
    return resources.feeds


async def _watchers(resources: TheResources) -> Watchers:
    return resources.watchers


async def _settings(resources: TheResources) -> Settings:
    return resources.settings


Work = Annotated[UnitOfWork, Depends(_work)]
TheStore = Annotated[Store, Depends(_store)]
TheFeeds = Annotated[Feeds, Depends(_feeds)]
TheWatchers = Annotated[Watchers, Depends(_watchers)]
TheSettings = Annotated[Settings, Depends(_settings)]


# Who calls -----------------------------------------------------------------------------------------------------------


def _caller(connection: HTTPConnection, work: Work) -> Caller:
    scheme, _, presented = connection.headers.get("authorization", "").partition(" ")
    presented = presented.strip()
    if scheme.lower() != "bearer" or not _KEY.fullmatch(presented):
        raise Unauthenticated("Send your key with every request, as `Authorization: Bearer epochd_…`.")
    with work.reading() as session:
        caller = keys.authenticate(session, presented)
        recorded = caller is None or keys.used_lately(session, caller.key_id)
    if caller is None:
        raise Unauthenticated("This key is unknown, revoked or expired. `epochd keys create` makes a new one.")
    if not recorded:
        with work.begin() as session:
            keys.record_use(session, caller.key_id)
    return caller


async def _reader(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    return _with_scope(caller, "read")


async def _writer(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    return _with_scope(caller, "write")


async def _admin(caller: Annotated[Caller, Depends(_caller)]) -> Caller:
    return _with_scope(caller, "admin")


def _with_scope(caller: Caller, scope: str) -> Caller:
    if scope not in caller.scopes:
        raise Forbidden(f"This key has no {scope} scope. Use one that has it; `epochd keys list` shows the scopes.")
    return caller


Reader = Annotated[Caller, Depends(_reader)]
Writer = Annotated[Caller, Depends(_writer)]
Admin = Annotated[Caller, Depends(_admin)]


# What is asked for ---------------------------------------------------------------------------------------------------


def _job_id(text: str) -> str:
    # Of another form than any id: the answer is that of an unknown one, without asking a database to compare NULs.
    if not _ID.fullmatch(text):
        raise NotFound("There is no job of that id. `GET /jobs` lists yours.")
    return text


def _dataset_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise NotFound("There is no dataset of that id. `GET /datasets` lists yours.")
    return text


def _upload_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise NotFound("There is no upload of that id. `POST /uploads` begins one.")
    return text


def _tokenizer_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise NotFound("There is no tokenizer of that id. `GET /tokenizers` lists yours.")
    return text


def _refusal_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise NotFound("There is no refusal of that id. The answer that refused a file names it.")
    return text


def _or_absent(text: object) -> object:
    # `?status=&tag=` asks for nothing in particular.
    return None if text == "" else text


JobId = Annotated[str, AfterValidator(_job_id)]
DatasetId = Annotated[str, AfterValidator(_dataset_id)]
UploadId = Annotated[str, AfterValidator(_upload_id)]
TokenizerId = Annotated[str, AfterValidator(_tokenizer_id)]
RefusalId = Annotated[str, AfterValidator(_refusal_id)]
# The bounds stand inside the unions: of an absent value there is nothing to measure.
_ShortText = Annotated[Text, Field(max_length=201)]
_Limit = Annotated[int, Field(ge=1, le=10_000)]
_ListCursor = Annotated[str, Field(pattern=_ID.pattern)]

Status = Annotated[
    JobStatus | None, BeforeValidator(_or_absent, json_schema_input_type=JobStatus | Literal[""] | None), Query()
]
Tag = Annotated[_ShortText | None, BeforeValidator(_or_absent), Query(description="`key:value`")]
IdempotencyKey = Annotated[
    str | None,
    Header(pattern=r"^[\x21-\x7e]{1,200}$", description="A retry under the same key returns the same job."),
]


@dataclass(frozen=True)
class PageRequest:
    """Which part of a list is asked for."""

    limit: int
    before: str | None


async def _paging(
    settings: TheSettings,
    limit: Annotated[_Limit | None, Query(description="50 by default")] = None,
    cursor: Annotated[_ListCursor | None, Query(description="`next_cursor` of a page")] = None,
) -> PageRequest:
    if limit and limit > settings.max_page_size:
        msg = f"A page holds up to {settings.max_page_size:,} (EPOCHD_MAX_PAGE_SIZE)."
        raise InvalidInput.at(("query", "limit"), msg)
    return PageRequest(limit or min(50, settings.max_page_size), cursor)


Paging = Annotated[PageRequest, Depends(_paging)]


async def _after(after: Annotated[str | None, Query(description="the id of the last event seen")] = None) -> Cursor:
    return Cursor.parse(after) if after else START


async def _resumed_after(
    after: Annotated[Cursor, Depends(_after)],
    last_event_id: Annotated[
        str | None, Header(description="as `after`, and before it, for server-sent events")
    ] = None,
) -> Cursor:
    # A browser that reconnects asks for the address it was given, with what it has heard since beside it.
    return Cursor.parse(last_event_id) if last_event_id else after


After = Annotated[Cursor, Depends(_after)]
ResumedAfter = Annotated[Cursor, Depends(_resumed_after)]


@dataclass(frozen=True)
class Watched:
    """A job that the caller sees, the newest event of its log when it was looked up, and the key that opens it."""

    job_id: str
    newest: Event | None
    key_id: str


def _watched(caller: Reader, work: Work, job_id: JobId) -> Watched:
    with work.reading() as session:
        job_queries.get(session, caller.sees, job_id)
        return Watched(job_id, events.newest(session, job_id), caller.key_id)


def _streamed(
    connection: HTTPConnection,
    work: Work,
    job_id: JobId,
    ticket: Annotated[
        str | None, Query(description="of `POST /jobs/{job_id}/stream-ticket`, in place of a key")
    ] = None,
) -> Watched:
    if ticket is None:
        return _watched(_with_scope(_caller(connection, work), "read"), work, job_id)
    caller = None
    if _KEY.fullmatch(ticket):
        with work.begin() as session:
            caller = tickets.redeem(session, ticket, job_id)
    if caller is None:
        raise Unauthenticated(
            "This ticket is unknown, used, expired, or another job's. `POST /jobs/{id}/stream-ticket` makes a new one."
        )
    return _watched(_with_scope(caller, "read"), work, job_id)


WatchedJob = Annotated[Watched, Depends(_watched)]
StreamedJob = Annotated[Watched, Depends(_streamed)]
