"""Tokenizers: upload, list, read, delete."""

from typing import Annotated

import anyio.to_thread
import sqlalchemy as sa
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import contextmanager_in_threadpool

from app.dependencies import Paging, Reader, TheResources, TheStore, TokenizerId, Work, Writer
from app.openapi import file_request, leads_to, problems
from app.resources import Resources
from app.schemas import TokenizerBody, TokenizerPage
from app.upload import Received, receive
from core import limits, tokenizer_files, tokenizers
from core.models import Tokenizer
from core.strict import ShortText
from core.tokenizer_files import CheckRequest

router = APIRouter(tags=["tokenizers"])


@router.post(
    "/tokenizers",
    status_code=201,
    operation_id="create_tokenizer",
    summary="Upload a tokenizer: a `tokenizer.json`, or a SentencePiece model",
    responses={
        201: leads_to("tokenizer_id", "get_tokenizer", "delete_tokenizer"),
        200: {"model": TokenizerBody, "description": "These bytes were here already."},
        **problems(408, 409, 413, 507),
    },
    openapi_extra=file_request(),
)
async def create(
    request: Request,
    response: Response,
    caller: Writer,
    resources: TheResources,
    *,
    filename: Annotated[str | None, Query(description="The file's name, where it is not in a form.")] = None,
    end_of_text: Annotated[
        ShortText | None, Query(description="The token that ends a text, where the tokenizer does not say so itself.")
    ] = None,
) -> TokenizerBody:
    """Receive a tokenizer, read a text with it in a process of its own, and keep it where that goes well."""
    async with contextmanager_in_threadpool(resources.store.incoming()) as path:
        received = await receive(request, path, filename)
        tokenizer, new = await anyio.to_thread.run_sync(
            _keep, resources, caller.owner_id, received, end_of_text, limiter=resources.looks
        )
    if not new:
        response.status_code = 200
    return TokenizerBody.model_validate(tokenizer)


@router.get(
    "/tokenizers", operation_id="list_tokenizers", summary="List tokenizers, newest first", responses=problems()
)
def list_(caller: Reader, work: Work, paging: Paging) -> TokenizerPage:
    """Return the caller's tokenizers."""
    with work.reading() as session:
        found = tokenizers.page(session, caller.sees, limit=paging.limit + 1, before=paging.before)
        return TokenizerPage.of(found, paging.limit)


@router.get(
    "/tokenizers/{tokenizer_id}", operation_id="get_tokenizer", summary="Read a tokenizer", responses=problems(404)
)
def read(caller: Reader, work: Work, tokenizer_id: TokenizerId) -> TokenizerBody:
    """Return one of the caller's tokenizers."""
    with work.reading() as session:
        return TokenizerBody.model_validate(tokenizers.get(session, caller.sees, tokenizer_id))


@router.delete(
    "/tokenizers/{tokenizer_id}",
    status_code=204,
    operation_id="delete_tokenizer",
    summary="Delete a tokenizer that no live job needs",
    responses=problems(404, 409),
)
def delete(caller: Writer, work: Work, store: TheStore, tokenizer_id: TokenizerId) -> None:
    """Return nothing: the tokenizer is gone. The checkpoints that were trained with it hold a copy."""
    with work.begin() as session:
        tokenizers.remove(session, caller.sees, tokenizer_id)
    # Should this process die here, a worker does it.
    store.delete(tokenizers.store_key(tokenizer_id))


def _keep(resources: Resources, owner_id: str, received: Received, end_of_text: str | None) -> tuple[Tokenizer, bool]:
    """Return the tokenizer of a received file, and whether it is new."""
    if same := _same(resources, owner_id, received, end_of_text):
        return same, False
    with resources.store.incoming() as target:
        checked = tokenizer_files.check(CheckRequest(path=received.path, target=target, end_of_text=end_of_text))
        try:
            with resources.work.begin() as session:
                limits.require_room(session, owner_id, received.size, resources.settings)
                tokenizer = tokenizers.add(
                    session,
                    owner_id,
                    filename=received.filename,
                    size=received.size,
                    sha256=received.sha256,
                    checked=checked,
                    file=target,
                    store=resources.store,
                )
            return tokenizer, True
        except sa.exc.IntegrityError:
            # The same bytes were uploaded at the same time, and the other upload was quicker.
            if same := _same(resources, owner_id, received, end_of_text):
                return same, False
            raise


def _same(resources: Resources, owner_id: str, received: Received, end_of_text: str | None) -> Tokenizer | None:
    with resources.work.reading() as session:
        found = tokenizers.find_same(session, owner_id, sha256=received.sha256, end_of_text=end_of_text)
        if found:
            session.expunge(found)
        return found
