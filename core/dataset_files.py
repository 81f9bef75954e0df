"""Reading a dataset's file in its plain form: its rows, and what is wrong with it, line by line.

Pure file reading, shared by the API (to check an upload) and the trainer (to train on it): both see the same rows.
What is uploaded in another form is brought into this one first, by `core/plain_form.py`.
"""

from collections.abc import Collection, Iterator
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

import pydantic_core
from pydantic import BaseModel, ConfigDict

from core.errors import Corrupt, Fault, InvalidInput
from core.text_lines import MAX_ROW_BYTES, Hashed, decoded, raw_blocks, text_lines

Format = Literal["txt", "jsonl"]
Split = Literal["blank_line", "line", "file"]

IGNORED_LABEL = -100
_MAX_TOKEN_ID = 2**31 - 1
READ_BYTES = 2**20
# The kinds of JSON rows by what each must hold. Whatever else a row holds is left alone.
_TEXT = ("text",)
_KINDS = (_TEXT, ("input_ids",), ("prompt", "completion"), ("messages",))
_ROLES = ("system", "user", "assistant")


class Known(BaseModel):
    """What a look through the whole file found, so that nobody needs to look again."""

    model_config = ConfigDict(frozen=True)

    bytes: int
    sha256: str
    rows: int
    skipped_rows: int
    columns: tuple[str, ...]


class DataFile(BaseModel):
    """A dataset's file and how to read it: `split` says what a row of a .txt is. `known` is None before any look."""

    model_config = ConfigDict(frozen=True)

    path: Path
    format: Format
    split: Split = "blank_line"
    known: Known | None = None


class Row(NamedTuple):
    """One row, of one of four kinds: a text; token ids with as many labels (-100: no loss on it); a prompt and its
    completion; or a conversation, whose messages have a `role` and a `content`.
    """

    text: str | None = None
    input_ids: list[int] | None = None
    labels: list[int] | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: list[dict[str, str]] | None = None


# The number of the line that a row begins at, the row (None where it is empty and will be skipped), and its columns. A
# plain tuple: there are millions, and a named one takes eight times as long to make.
Line = tuple[int, Row | None, tuple[str, ...]]


class Texts(NamedTuple):
    """Texts, none of them blank, that are a row each: of the line `first` and those that follow it."""

    first: int
    texts: list[str]


def holds_ids(columns: Collection[str]) -> bool:
    """Tell from a dataset's columns whether its rows are token ids; every other kind is text for a tokenizer."""
    return "input_ids" in columns


def read_rows(file: DataFile) -> Iterator[Row]:
    """Yield the usable rows in order: exactly the rows that a look through the file counted.

    Raises InvalidInput where a row cannot be read; a file that passed that look has none such. Raises Corrupt at the
    end where the bytes are no longer those that are `known`.
    """
    with Hashed(file.path) as hashed:
        for line in lines(file, BufferedReader(hashed, READ_BYTES)):
            if isinstance(line, Fault):
                raise InvalidInput(f"{file.path.name}: {line.msg}", [line])
            if line[1] is not None:
                yield line[1]
        if file.known and file.known.sha256 != hashed.sha256.hexdigest():
            raise Corrupt(f"The dataset's file {file.path.name} is damaged: its sha256 is not the one it came with")


def lines(file: DataFile, stream: BinaryIO) -> Iterator[Line | Fault]:
    """Yield what is in a file, whose bytes come from `stream`: rows, and what is wrong."""
    for found in blocks(file, stream):
        if isinstance(found, Texts):
            for number, text in enumerate(found.texts, found.first):
                yield number, Row(text), _TEXT
        else:
            yield found


def blocks(file: DataFile, stream: BinaryIO) -> Iterator[Texts | Line | Fault]:
    """Yield the same, and texts by the hundred where nothing else is among them."""
    return _jsonl(stream) if file.format == "jsonl" else _documents(stream, file.split)


def _documents(stream: BinaryIO, split: Split) -> Iterator[Line | Fault]:
    block: list[str] = []
    start, size = 1, 0
    for line in text_lines(stream):
        if isinstance(line, Fault):
            yield line
            return
        number, text = line
        blank = not text.strip()
        if split == "line":
            yield number, None if blank else Row(text.rstrip("\r\n")), _TEXT
        elif split == "blank_line" and blank:
            if block:
                yield start, Row("".join(block).strip("\r\n")), _TEXT
            block, size = [], 0
        else:
            if not block:
                start = number
            block.append(text)
            size += len(text)
            if size > MAX_ROW_BYTES:
                yield Fault(("line", start), f"the document at line {start} is over {MAX_ROW_BYTES // 2**20} MiB")
                return
    if block and "".join(block).strip():
        yield start, Row("".join(block).strip("\r\n")), _TEXT


def _jsonl(stream: BinaryIO) -> Iterator[Texts | Line | Fault]:
    rows = _JsonRows()
    for block in raw_blocks(stream):
        if isinstance(block, Fault):
            yield block
            return
        first, raws = block
        if texts := rows.texts(raws):
            yield Texts(first, texts)
            continue
        for number, raw in enumerate(raws, first):
            try:
                found = rows.line(number, raw)
            except _NoText as error:
                yield error.fault
                return
            if found is not None:
                yield found


class _NoText(Exception):
    """Past this line nothing of the file can be trusted."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault


class _JsonRows:
    """Lines of JSON as rows, all of one kind: that of the first."""

    def __init__(self) -> None:
        self._kind: tuple[str, ...] | None = None

    def texts(self, raws: list[bytes]) -> list[str] | None:
        """Return what lines hold if all are rows of a text and nothing else, as those before them; else None.

        What `line` finds is found here too, several times as fast.
        """
        if self._kind != _TEXT:
            return None
        try:
            values = [pydantic_core.from_json(raw, allow_inf_nan=False) for raw in raws]
            if {*map(type, values)} != {dict} or {*map(len, values)} != {1}:
                return None
            texts = [value["text"] for value in values]
        except (ValueError, KeyError):
            return None
        return texts if {*map(type, texts)} == {str} and all(texts) and not any(map(str.isspace, texts)) else None

    def line(self, number: int, raw: bytes) -> Line | Fault | None:
        """Return the row of a line, what is wrong with it, or None where it is blank. Raises _NoText."""
        try:
            value = pydantic_core.from_json(raw, allow_inf_nan=False)
        except ValueError:
            # What is JSON is UTF-8 without NUL bytes: only what is none needs to be looked at so closely.
            text = decoded(number, raw)
            if isinstance(text, Fault):
                raise _NoText(text) from None
            return Fault(("line", number), f"line {number} is not JSON: {_reason(text)}") if text.strip() else None
        try:
            kind = _kind(value)
            self._kind = self._kind or kind
            if kind != self._kind:
                raise ValueError(f"has {' and '.join(kind)} where the rows before have {' and '.join(self._kind)}")
            row = _READERS[kind](value)
        except ValueError as error:
            return Fault(("line", number), f"line {number} {error}")
        return number, row, (*kind, "labels") if kind == ("input_ids",) and "labels" in value else kind


def _reason(text: str) -> str:
    """Return why a line is not JSON, in the parser's words."""
    try:
        pydantic_core.from_json(text.rstrip("\r\n"), allow_inf_nan=False)
    except ValueError as error:
        return str(error).replace("line 1 column", "column")  # it counts lines too, and sees but this one
    return "it is not UTF-8"


def are_json_lines(text: str) -> bool:
    """Say whether a text that is read as a .txt begins as rows of JSON do."""
    try:
        _kind(pydantic_core.from_json(text.partition("\n")[0]))
    except ValueError:
        return False
    return True


@lru_cache(64)
def _kind_of(columns: tuple[str, ...]) -> tuple[str, ...] | None:
    kinds = [kind for kind in _KINDS if set(columns).issuperset(kind)]
    return kinds[0] if len(kinds) == 1 else None


def _kind(value: Any) -> tuple[str, ...]:
    if not isinstance(value, dict):
        raise ValueError('is not a JSON object such as {"text": "…"}')
    kind = _kind_of(tuple(value))
    if kind is None:
        raise ValueError('must have either "text", "input_ids", "prompt" and "completion", or "messages"')
    return kind


def _text_row(value: dict[str, Any]) -> Row | None:
    text = value["text"]
    if not isinstance(text, str):
        raise ValueError("has a text that is not a string")
    return None if not text or text.isspace() else Row(text)


def _completion_row(value: dict[str, Any]) -> Row:
    prompt, completion = value["prompt"], value["completion"]
    if not isinstance(prompt, str) or not isinstance(completion, str):
        raise ValueError("has a prompt or a completion that is not a string")
    if not completion.strip():
        raise ValueError("has a blank completion: there is nothing to learn from it")
    return Row(prompt=prompt, completion=completion)


def _messages_row(value: dict[str, Any]) -> Row:
    if not isinstance(value["messages"], list):
        raise ValueError("has messages that are not a list")
    messages = [_message(number, message) for number, message in enumerate(value["messages"], 1)]
    # What comes first answers nothing: nobody can ask a model for it, so it carries no loss.
    if all(message["role"] != "assistant" for message in messages[1:]):
        raise ValueError("has no assistant message that follows another message: there is nothing to learn from it")
    return Row(messages=messages)


def _message(number: int, message: Any) -> dict[str, str]:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise ValueError(f"has a message {number} whose role is none of {', '.join(_ROLES)}")
    if not isinstance(message.get("content"), str):
        raise ValueError(f"has a message {number} whose content is not a string")
    return {"role": message["role"], "content": message["content"]}


def _ids_row(value: dict[str, Any]) -> Row | None:
    ids, labels = value["input_ids"], value.get("labels", value["input_ids"])
    if not _token_ids(ids):
        raise ValueError(f"has input_ids that are not a list of whole numbers from 0 to {_MAX_TOKEN_ID}")
    if not isinstance(labels, list) or not _token_ids([n for n in labels if not _ignored(n)]):
        raise ValueError(f"has labels that are not a list of token ids or {IGNORED_LABEL}")
    if len(labels) != len(ids):
        raise ValueError(f"has {len(ids)} input_ids and {len(labels)} labels: give as many of each")
    return Row(input_ids=ids, labels=labels) if ids else None


_READERS = dict(zip(_KINDS, (_text_row, _ids_row, _completion_row, _messages_row), strict=True))


def _ignored(label: Any) -> bool:
    return type(label) is int and label == IGNORED_LABEL  # -100.0 equals it, and is none


def _token_ids(value: Any) -> bool:
    # type() and not isinstance(): a bool is an int to Python, never to us.
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= _MAX_TOKEN_ID for n in value)
