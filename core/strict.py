"""What every part of a spec is made of: models without coercion, and text that every database can hold."""

from typing import Annotated
from unicodedata import category

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints


def _without_nul(text: str) -> str:
    # PostgreSQL cannot store NUL in text; SQLite can. Refused on both, so that they answer alike.
    if "\x00" in text:
        raise ValueError("must not contain the NUL character")
    return text


def _one_line(text: str) -> str:
    # A name stands in tables and terminals: nothing in it may break a line or steer a screen.
    if any(category(character) in ("Cc", "Zl", "Zp") for character in text):
        raise ValueError("must be one line without control characters")
    return text


Text = Annotated[str, AfterValidator(_without_nul)]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_without_nul)]
Name = Annotated[ShortText, AfterValidator(_one_line)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Strict(BaseModel):
    """No coercion, no unknown field, no NaN; frozen, because a spec is a fact."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)
