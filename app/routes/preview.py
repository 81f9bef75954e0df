"""The preview of a dataset: its first rows as the model will see them."""

from functools import partial
from typing import Annotated, Literal

import anyio.to_thread
from fastapi import APIRouter, Query
from pydantic import Field, ValidationError

from app.dependencies import DatasetId, Reader, TheResources
from app.openapi import problems
from app.resources import Resources
from core import look_ahead, preview
from core.errors import InvalidInput
from core.job_spec import Sequence
from core.ownership import Seer
from core.preview import MOST_ROWS, Preview

router = APIRouter(tags=["datasets"])

_Length = Annotated[int, Field(ge=1, le=2**31 - 1)]


@router.get(
    "/datasets/{dataset_id}/preview",
    operation_id="preview_dataset",
    summary="See a dataset's first rows as the model will: tokens, which of them carry loss, and where rows are cut",
    responses=problems(404),
)
async def read(
    caller: Reader,
    resources: TheResources,
    dataset_id: DatasetId,
    *,
    rows: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 5,
    tokenizer: Annotated[
        str | None,
        Query(
            pattern=r"^[0-9A-Za-z_-]{1,64}$",
            description="`bytes`, `train` (the default for text: learnt from the first rows), the id of an uploaded "
            "tokenizer, or of a job whose newest checkpoint has one.",
        ),
    ] = None,
    vocab_size: Annotated[int, Query(ge=257, le=262_144, description="Of a tokenizer that is trained.")] = 4096,
    mode: Annotated[Literal["document", "packed"], Query()] = "document",
    max_length: _Length = 256,
    stride: _Length | None = None,
    min_length: _Length = 2,
) -> Preview:
    """Return the rows, made by the code that the trainer uses, in a process of its own."""
    sequence = _sequence(mode=mode, max_length=max_length, stride=stride, min_length=min_length)
    look = partial(
        _look,
        resources,
        caller.sees,
        dataset_id,
        rows=rows,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        sequence=sequence,
    )
    return await anyio.to_thread.run_sync(look, limiter=resources.looks)


def _sequence(**fields: int | str | None) -> Sequence:
    try:
        return Sequence.model_validate(fields)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ("query", *map(str, fault["loc"]))
        raise InvalidInput.at(place, fault["msg"].removeprefix("Value error, ")) from error


def _look(
    resources: Resources,
    seer: Seer,
    dataset_id: str,
    *,
    rows: int,
    tokenizer: str | None,
    vocab_size: int,
    sequence: Sequence,
) -> Preview:
    if sequence.max_length > (limit := resources.settings.max_sequence_length):
        msg = f"max_length is {sequence.max_length}; this server allows {limit}."
        raise InvalidInput.at(("query", "max_length"), msg)
    with resources.work.reading() as session:
        request = look_ahead.preview_request(
            session,
            seer,
            resources.store,
            dataset_id,
            rows=rows,
            tokenizer=tokenizer,
            vocab_size=vocab_size,
            sequence=sequence,
        )
    return preview.preview(request)
