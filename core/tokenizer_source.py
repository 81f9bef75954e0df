"""Where a tokenizer comes from, in local paths: what a process that is to read rows with it is told."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from core.job_spec import END_OF_TEXT, TokenizerTraining


class TokenizerSource(BaseModel):
    """One that is to be learnt from the rows at hand; that of a model's folder; a `tokenizer.json` with the token that
    ends its texts; or, where none of these is given, that of bytes.
    """

    model_config = ConfigDict(frozen=True)

    learn: TokenizerTraining | None = None
    folder: Path | None = None
    file: Path | None = None
    end_of_text: str = END_OF_TEXT
