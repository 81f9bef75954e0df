"""What `benchmarks.throughput` prints of the rounds of one case."""

import statistics
from dataclasses import dataclass

from benchmarks.stopwatch import Measurement

REFERENCE = "epochd, the trainer alone"
_HEADER = ("", "tokens/s", "min", "max", "epochd is", "memory", "of peak", "of shapes", "first loss")
_WIDTHS = (28, 10, 10, 10, 10, 10, 9, 10, 11)


@dataclass(frozen=True)
class Round:
    """One turn of every contender. The FLOP/s are the machine's in it: see `matmul_peak`."""

    square_flops: float
    shapes_flops: float
    measurements: dict[str, Measurement]


def table(rounds: list[Round], flops_per_token: float) -> str:
    """Return the table.

    `epochd is` how many times as fast as the contender the trainer alone is: the median of the rounds' own ratios.
    `memory` is the most that any round needed, of the device where there is one. `of peak` and `of shapes` are the
    contender's model FLOP/s as a share of the machine's: in a large square product, and in the model's own.
    """
    return "\n".join(
        "".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(line))
        for line in (zip(cells, _WIDTHS, strict=True) for cells in [_HEADER, *_lines(rounds, flops_per_token)])
    )


def _lines(rounds: list[Round], flops_per_token: float) -> list[tuple[str, ...]]:
    lines = list[tuple[str, ...]]()
    for name in rounds[0].measurements:
        measured = [each.measurements[name] for each in rounds]
        speeds = [m.tokens_per_second for m in measured]
        pairs = list(zip(rounds, speeds, strict=True))
        ratio = statistics.median(each.measurements[REFERENCE].tokens_per_second / speed for each, speed in pairs)
        lines.append(
            (
                name,
                f"{statistics.median(speeds):,.0f}",
                f"{min(speeds):,.0f}",
                f"{max(speeds):,.0f}",
                f"{ratio:.2f} x",
                _memory(measured),
                f"{statistics.median(speed * flops_per_token / each.square_flops for each, speed in pairs):.1%}",
                f"{statistics.median(speed * flops_per_token / each.shapes_flops for each, speed in pairs):.1%}",
                f"{measured[0].first_loss:.3f}",
            )
        )
    return lines


def _memory(measured: list[Measurement]) -> str:
    sizes = [size for m in measured if (size := m.device_memory or m.peak_rss) is not None]
    return f"{max(sizes) / 1e6:,.0f} MB" if sizes else "unknown"
