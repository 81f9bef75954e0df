"""A folder of essays as one dataset: each a .txt with a header (title, date, author), then its text.

The form is that of a well-known teaching project: a row is `title<sep>body<eod>`, its body without blank lines.
"""

import json
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from core.errors import InvalidInput

SEPARATOR, END = "<sep>", "<eod>"

_FENCE = re.compile(r"-{3,}")
# A label and its value; Chinese text has a colon of its own.
_FIELD = re.compile(r"[^\s:\uff1a][^:\uff1a]{0,30}[:\uff1a](.*)")


class Gathered(NamedTuple):
    """How many essays were written, and of each file that was left out the name and why."""

    essays: int
    left_out: list[tuple[str, str]]


def gather(folder: Path, target: Path, *, separator: str, end: str, encoding: str = "utf-8") -> Gathered:
    """Write the essays of a folder, in the order of their names, to a file of JSON lines.

    Raises InvalidInput where the folder holds none.
    """
    essays, left_out = 0, list[tuple[str, str]]()
    with target.open("w", encoding="utf-8") as out:
        for path in sorted(path for path in folder.iterdir() if path.suffix.lower() == ".txt"):
            try:
                title, body = read_essay(path.read_text(encoding=encoding))
            except UnicodeDecodeError as error:
                left_out.append((path.name, f"is not {encoding} (byte {error.start}); --encoding names another"))
            except InvalidInput as error:
                left_out.append((path.name, error.detail))
            else:
                out.write(json.dumps({"text": f"{title}{separator}{body}{end}"}, ensure_ascii=False) + "\n")
                essays += 1
    if not essays:
        reason = f", and the first that was left out, {left_out[0][0]}, {left_out[0][1]}" if left_out else ""
        raise InvalidInput(f"{folder} holds no essay: no .txt with a header and a text{reason}.")
    return Gathered(essays, left_out)


def read_essay(text: str) -> tuple[str, str]:
    """Return an essay's title and body. Raises InvalidInput where it has no header, no title or no text.

    The header is a few lines `label: value`, the title's first, between lines of dashes or up to a blank line.
    """
    lines = iter(StringIO(text.removeprefix("\ufeff")))
    fields = list(_header(lines))
    if not fields or not fields[0]:
        raise InvalidInput("has no header whose first line is its title (title: …)")
    # As that project joins it: without blank lines, and every other line with its end.
    body = "".join(line for line in lines if line.strip())
    if not body:
        raise InvalidInput("has a header and no text")
    return fields[0], body


def _header(lines: Iterator[str]) -> Iterator[str]:
    """Yield the values of the header's fields, and take its last line."""
    begun = False
    for line in map(str.strip, lines):
        if _FENCE.fullmatch(line):
            if begun:
                return
            begun = True
        elif field := _FIELD.fullmatch(line):
            begun = True
            yield field[1].strip()
        elif begun or line:
            return
