"""An uploaded tokenizer's file: checked in a confined process, which writes the one form that the trainer reads."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from core import confined

Format = Literal["tokenizer.json", "sentencepiece"]

_SECONDS = 60.0
_MEMORY = 4 * 2**30


class CheckRequest(BaseModel):
    """Look through the file at `path` and write it as a `tokenizer.json` to `target`; `end_of_text` names that token
    where the client did.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    target: Path
    end_of_text: str | None


class Checked(BaseModel):
    """What a tokenizer's file is. `lossless`: a text of many scripts came out of it as it went in."""

    model_config = ConfigDict(frozen=True)

    format: Format
    vocab_size: int
    end_of_text: str
    lossless: bool


def check(request: CheckRequest) -> Checked:
    """Check a file and write what the trainer reads. Raises InvalidInput, with what is wrong, where it is of no use."""
    return confined.call(
        "core.tokens.checking:check",
        request,
        Checked,
        what="Reading this tokenizer",
        seconds=_SECONDS,
        memory=_MEMORY,
    )
