"""What a look through a dataset found: how many rows and how long, which are there twice, and which are skipped."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

MAX_WARNINGS = 20
# Up to so many rows that differ it is exact which are there twice; of more, an even share of them is looked at.
_REMEMBERED_ROWS = 2**20


@dataclass
class Report:
    """What a look through a whole file found. `warnings` holds the first few things to be known of rows.

    `largest_id` is that of all token ids and labels; None for text. `lengths` says how many rows there are of each
    span of lengths: tokens where the rows are token ids (`tokens` is their sum), characters elsewhere (`characters`).
    """

    rows: int = 0
    skipped_rows: int = 0
    duplicate_rows: int = 0
    duplicates_are_estimated: bool = False
    characters: int | None = None
    tokens: int | None = None
    lengths: list[dict[str, int]] = field(default_factory=list)
    largest_id: int | None = None
    columns: list[str] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)


class Tally:
    """Counts rows as they go by, in little memory, however many there are."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._passed_over = 0  # of a row's hash these bits must be 0 for it to be looked at
        self._repeated = 0
        self._by_bits = [0] * 65
        self._total = 0

    def add(self, report: Report, lengths: list[int], contents: list[int]) -> None:
        """Count rows of so many characters or tokens, with the hashes of what they hold."""
        report.rows += len(lengths)
        self._total += sum(lengths)
        for bits, rows in Counter(map(int.bit_length, lengths)).items():
            self._by_bits[bits] += rows
        if self._passed_over:
            contents = [name for name in contents if not name & self._passed_over]
        known = len(self._seen)
        self._seen.update(contents)
        self._repeated += len(contents) - (len(self._seen) - known)
        while len(self._seen) > _REMEMBERED_ROWS:
            self._passed_over = 2 * self._passed_over + 1
            self._seen = {name for name in self._seen if not name & self._passed_over}
            self._repeated //= 2

    def tell(self, report: Report) -> None:
        """Write what was counted into the report, as tokens where its rows have a largest id."""
        if report.largest_id is None:
            report.characters = self._total
        else:
            report.tokens = self._total
        report.duplicate_rows = self._repeated * (self._passed_over + 1)
        report.duplicates_are_estimated = self._passed_over > 0
        report.lengths = [
            {"from": 2**bits // 2, "to": 2**bits - 1, "rows": rows} for bits, rows in enumerate(self._by_bits) if rows
        ]
