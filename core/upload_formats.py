"""What an uploaded file is: told by its name, and by its first bytes where those say something else."""

import codecs
import re
from pathlib import Path
from typing import Literal, NamedTuple

from core.errors import InvalidInput

Inner = Literal["txt", "jsonl", "parquet", "pkl"]

_SUFFIXES: dict[str, Inner] = {
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pkl": "pkl",
    ".pickle": "pkl",
}
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_OTHERS = {
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
}
_LONGEST_MAGIC = 6
# Encodings of text; what else Python calls an encoding is none of a file's.
_ENCODINGS = re.compile(
    r"utf-8(-sig)?|utf-(16|32)(-[bl]e)?|gb2312|gbk|gb18030|hz|big5(hkscs)?|shift_jis\w*|euc_\w+|iso2022_\w+|johab"
    r"|iso8859-\d+|cp\d+|koi8-\w|mac-\w+|tis-620|ascii"
)


class UploadFormat(NamedTuple):
    """What a file holds, and whether gzip is around it."""

    inner: Inner
    gzipped: bool = False

    @property
    def name(self) -> str:
        """Return it as the API calls it: `jsonl`, `txt.gz`, `parquet`, …"""
        return f"{self.inner}.gz" if self.gzipped else self.inner

    @property
    def is_text(self) -> bool:
        """Whether it is lines of text, which have an encoding."""
        return self.inner in ("txt", "jsonl")


def format_of(filename: str) -> UploadFormat:
    """Tell the format from a file's name. Raises InvalidInput for one that epochd does not read."""
    stem, suffix = Path(filename).stem, Path(filename).suffix.lower()
    gzipped = suffix == ".gz"
    inner = _SUFFIXES.get(Path(stem).suffix.lower() if gzipped else suffix)
    if inner is None or (gzipped and inner not in ("txt", "jsonl")):
        raise InvalidInput(
            f"A dataset is a .txt, .jsonl, .txt.gz, .jsonl.gz, .parquet or .pkl file; {filename!r} is none of these. "
            "Rename or convert it."
        )
    return UploadFormat(inner, gzipped)


def recognise(path: Path, filename: str) -> UploadFormat:
    """Tell the format of a file by its name and its content. Raises InvalidInput where it is none that is read."""
    named = format_of(filename)
    with path.open("rb") as stream:
        magic = stream.read(_LONGEST_MAGIC)
    if other := next((words for start, words in _OTHERS.items() if magic.startswith(start)), None):
        raise InvalidInput(f"{filename!r} is {other}: unpack it, and compress it with gzip if at all.")
    if magic.startswith(_PARQUET):
        return UploadFormat("parquet")
    if magic.startswith(_GZIP) and named.is_text:
        return UploadFormat(named.inner, gzipped=True)
    if magic[:1] == b"\x80" and magic[1:2] <= b"\x05" and len(magic) > 1:  # no UTF-8 begins so, and every pickle does
        return UploadFormat("pkl")
    if named.inner == "parquet":
        raise InvalidInput(f"{filename!r} is no Parquet file: it does not begin as one. Write it anew.")
    return UploadFormat(named.inner)


def encoding_of(name: str | None, format_: UploadFormat) -> str:
    """Return the encoding to read with, as Python calls it: `utf-8` where none is named.

    Raises InvalidInput for one that is unknown, or named for a file that is no text.
    """
    if name is None:
        return "utf-8"
    if not format_.is_text:
        raise InvalidInput.at(("query", "encoding"), "encoding says how a text is written: leave it out for this file.")
    try:
        known = codecs.lookup(name).name
    except (LookupError, ValueError):
        known = ""
    if not _ENCODINGS.fullmatch(known):
        raise InvalidInput.at(
            ("query", "encoding"), "This is no encoding that is known here. Name one such as gb18030, big5 or cp1252."
        )
    return known.removesuffix("-sig")
