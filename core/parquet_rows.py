"""The rows of a Parquet file as JSON: a few at a time, and only the columns that a dataset can have.

To be read in a process with limits alone: a forged file can make any reader of it ask for all memory there is.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from core.errors import Fault, InvalidInput

_COLUMNS = ("text", "input_ids", "labels", "prompt", "completion", "messages")
_ROWS_AT_ONCE = 256


def parquet_rows(path: Path) -> Iterator[bytes]:
    """Yield each row as a line of JSON. Raises InvalidInput where the file is damaged, or holds none of the columns."""
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            columns = _columns_of(file)
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield _line(row, number)
    except (InvalidInput, MemoryError):
        raise
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise InvalidInput.at(
            ("row", number + 1), f"row {number + 1} cannot be read, the Parquet file is damaged: {reason}"
        ) from error


def _columns_of(file: pyarrow.parquet.ParquetFile) -> list[str]:
    there = file.schema_arrow.names
    columns = [name for name in _COLUMNS if name in there]
    if not columns or (columns == ["labels"]):
        raise InvalidInput(
            f"The Parquet file has the columns {', '.join(map(repr, there[:20]))}. It must have text, input_ids, "
            "prompt and completion, or messages: rename a column."
        )
    return columns


def _line(row: dict[str, Any], number: int) -> bytes:
    # An absent label is no label; every other null is a fault that the look at the row tells.
    if row.get("labels", 0) is None:
        del row["labels"]
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInput("The dataset cannot be used.", [Fault(("row", number), f"row {number}: {error}")]) from error
