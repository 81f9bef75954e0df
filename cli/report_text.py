"""What was found in a dataset, in words."""

from collections.abc import Iterator

from cli.client import Json

_BAR_CHARACTERS = 30


def report_lines(report: Json) -> Iterator[str]:
    """Yield a report's numbers as lines, its lengths as bars."""
    unit = "tokens" if report.get("tokens") is not None else "characters"
    if (total := report.get(unit)) is not None:
        about = "about " if report.get("duplicates_are_estimated") else ""
        yield (
            f"{total:,} {unit}; {report['skipped_rows']:,} rows skipped; "
            f"{about}{report['duplicate_rows']:,} rows that repeat an earlier one"
        )
    spans = report.get("lengths") or []
    most = max((span["rows"] for span in spans), default=1)
    for span in spans:
        bar = "█" * max(1, round(span["rows"] / most * _BAR_CHARACTERS))
        yield f"{span['from']:>11,} to {span['to']:<11,} {unit}  {bar} {span['rows']:,}"
