"""A look at a dataset's first rows as the model will see them: what is asked for, and what is shown."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from core import confined
from core.dataset_files import DataFile
from core.job_spec import Sequence
from core.tokenizer_source import TokenizerSource

MOST_ROWS = 100

_SECONDS = 30.0
_MEMORY = 4 * 2**30


class PreviewRequest(BaseModel):
    """The first `rows` rows of a file, read with a tokenizer (None: token ids alone), cut as `sequence` says."""

    model_config = ConfigDict(frozen=True)

    file: DataFile
    rows: Annotated[int, Field(ge=1, le=MOST_ROWS)]
    tokenizer: TokenizerSource | None
    sequence: Sequence


class PreviewRow(BaseModel):
    """A row, counted from 1, and how many tokens it has; `whole` is false where only its beginning was read."""

    row: int
    tokens: int
    whole: bool


class PreviewPart(BaseModel):
    """Tokens of one row in a window, from its token `start` (from 0) on. `pieces` say what they stand for, null where
    no tokenizer knows; `loss` which of them the model learns to predict.
    """

    row: int
    start: int
    ids: list[int]
    pieces: list[str | None]
    loss: list[bool]


class PreviewWindow(BaseModel):
    """What the model sees at once: parts of one row, or where rows are packed of several. `positions` are computed,
    `loss_tokens` of them carry loss.
    """

    positions: int
    loss_tokens: int
    parts: list[PreviewPart]


class LeftOut(BaseModel):
    """Tokens of a row that are not trained on, and why."""

    row: int
    start: int
    tokens: int
    reason: str


class Preview(BaseModel):
    """Rows as the model will see them. `notes` say where the job itself may see them otherwise, `more_windows` how many
    windows of these rows are not shown.
    """

    vocab_size: int | None
    rows: list[PreviewRow]
    windows: list[PreviewWindow]
    left_out: list[LeftOut]
    more_windows: int
    notes: list[str]


def preview(request: PreviewRequest) -> Preview:
    """Return rows as the model will see them, made in a confined process.

    Raises InvalidInput where they cannot be read so, or where that takes too long.
    """
    return confined.call(
        "core.tokens.previewing:preview",
        request,
        Preview,
        what="Reading these rows with this tokenizer",
        seconds=_SECONDS,
        memory=_MEMORY,
    )
