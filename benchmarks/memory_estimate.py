"""`python -m benchmarks.memory_estimate`: what the plan says a run takes of memory, beside what it then took.

Each run is a trainer of its own, on the CPU. Measured is the most that it held beyond what it held with its imports
done and no job yet; estimated is the `total` of its plan's memory.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np

_WIDTHS = (44, 14, 14, 10)
_UPDATES = 6


@dataclass(frozen=True)
class Case:
    """A run: its model, and rows of token ids between two lengths. `training` and `sequence` as in a spec."""

    name: str
    model: dict[str, Any]
    vocab_size: int
    lengths: tuple[int, int]
    batch_size: int
    training: dict[str, Any] = field(default_factory=dict)
    sequence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """Bytes: what the plan said, and what the run took."""

    estimated: int
    measured: int

    @property
    def off_by(self) -> float:
        """The estimate's error as a share of what was measured."""
        return self.estimated / self.measured - 1


_NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_GPT2 = {"model_type": "gpt2"}
CASES = [
    Case("gpt2, 4 layers of 256, 16 x 200", _GPT2, 4096, (200, 200), 16),
    Case("the same without dropout", _GPT2 | _NO_DROPOUT, 4096, (200, 200), 16),
    Case("the same, rows of 10 to 200", _GPT2, 4096, (10, 200), 16),
    Case("the same, 2 batches in an update", _GPT2, 4096, (200, 200), 16, {"gradient_accumulation_steps": 2}),
    Case("the same, gradient checkpointing", _GPT2, 4096, (200, 200), 16, {"gradient_checkpointing": True}),
    Case("the same, packed rows", _GPT2, 4096, (10, 200), 16, {}, {"mode": "packed"}),
    Case("the same, 1 x 20", _GPT2, 4096, (20, 20), 1),
    Case("the same, a vocabulary of 50,000, 8 x 100", _GPT2, 50_000, (100, 100), 8),
    Case("gpt2, 4 layers of 768, 4 x 64", _GPT2 | {"n_embd": 768, "n_head": 12}, 8192, (64, 64), 4),
    Case("gpt2, 7 layers of 512, 16 x 200", _GPT2 | {"n_layer": 7, "n_embd": 512, "n_head": 8}, 4096, (200, 200), 16),
    Case("gpt2 without dropout, 2 x 1000", _GPT2 | _NO_DROPOUT, 4096, (1000, 1000), 2),
    Case("llama, 4 layers of 256, 16 x 200", {"model_type": "llama"}, 4096, (200, 200), 16),
    Case("qwen2 of 2 groups, 16 x 200", {"model_type": "qwen2", "num_key_value_heads": 2}, 4096, (200, 200), 16),
    Case("gpt_neox, 4 layers of 256, 16 x 200", {"model_type": "gpt_neox"}, 4096, (200, 200), 16),
]


def measure(case: Case) -> Measured:
    """Run a case."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        _write_rows(case, rows)
        spec = {
            "dataset": "memory",
            "validation": None,
            "model": {"config": case.model},
            "sequence": {"max_length": case.lengths[1]} | case.sequence,
            "training": {"epochs": 1, "batch_size": case.batch_size, "precision": "fp32"} | case.training,
        }
        assignment = {
            "spec": spec,
            "dataset": {"path": str(rows), "format": "jsonl"},
            "output_dir": str(Path(folder) / "out"),
            "device": "cpu",
        }
        return _trained(json.dumps(assignment))


def _trained(assignment: str) -> Measured:
    """Let a trainer do a few updates and save a checkpoint, as it is started for a job."""
    with subprocess.Popen([sys.executable, "-m", "worker.training"], stdin=PIPE, stdout=PIPE, text=True) as trainer:
        assert trainer.stdin
        assert trainer.stdout
        trainer.stdout.readline()  # that it is ready: its imports are done
        before = _resident(trainer.pid)
        trainer.stdin.write(assignment + "\n")
        trainer.stdin.flush()
        estimated, updates = 0, 0
        for line in trainer.stdout:
            fact = json.loads(line)
            if fact["fact"] == "planned":
                estimated = fact["memory"]["total"]
            updates += fact["fact"] == "batch" and fact["tokens_per_second"] is not None
            if updates == _UPDATES:
                trainer.stdin.write('{"order": "stop"}\n')
                trainer.stdin.flush()
        _, trainer.returncode, used = os.wait4(trainer.pid, 0)
        return Measured(estimated=estimated, measured=used.ru_maxrss * 1024 - before)


def _resident(pid: int) -> int:
    """Return what a process holds, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def _write_rows(case: Case, path: Path) -> None:
    rng = np.random.default_rng(0)
    low, high = case.lengths
    count = case.batch_size * _UPDATES * case.training.get("gradient_accumulation_steps", 1)
    # Rows of unequal lengths: enough of them that some batches hold the longest.
    lengths = rng.integers(low, high + 1, count if low == high else 8 * count)
    rows = [rng.integers(0, case.vocab_size, length).tolist() for length in lengths]
    rows[0][0] = case.vocab_size - 1
    path.write_text("\n".join(json.dumps({"input_ids": row}) for row in rows))


def main() -> None:
    """Print a line for each case."""
    print(_line("", "estimated", "measured", "off by"), flush=True)
    for case in CASES:
        found = measure(case)
        cells = (f"{found.estimated / 1e6:,.0f} MB", f"{found.measured / 1e6:,.0f} MB", f"{found.off_by:+.0%}")
        print(_line(case.name, *cells), flush=True)


def _line(name: str, *cells: str) -> str:
    return name.ljust(_WIDTHS[0]) + "".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS[1:], strict=True))


if __name__ == "__main__":
    main()
