"""Where the time of epochd's update goes: one run of the trainer in this process, profiled in its steady state.

    python -m benchmarks.profile_step [--model 4m|25m] [--shape ragged|full] [--updates 20] [--device auto|cpu|cuda]

Shares are of the time inside torch's operators, on one core of a CPU or of the time of a GPU's kernels. What is left of
the updates' own time is Python, and the profiler itself: the absolute times are longer than those of a run that nobody
profiles.
"""

import argparse
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.case import Case, Device, job_spec
from benchmarks.rows import make_rows
from benchmarks.shapes import BATCH_SIZE, MAX_LENGTH, MODELS, VOCAB_SIZE
from worker.training.assignment import Assignment
from worker.training.facts import Batch
from worker.training.loop import train

_REST = "the rest"
# The first that fits an operator, or one that it is a part of.
_KINDS = (
    ("dropout", re.compile(r"dropout|bernoulli|random_", re.IGNORECASE)),
    ("logits and cross-entropy", re.compile(r"cross_?entropy|nll_loss|log_softmax", re.IGNORECASE)),
    ("norms", re.compile(r"layer_?norm", re.IGNORECASE)),
    ("activations", re.compile(r"gelu|tanh|silu", re.IGNORECASE)),
    ("optimizer and clipping", re.compile(r"Optimizer\.|adamw|_foreach_|aten::dot", re.IGNORECASE)),
    ("attention", re.compile(r"attention|softmax|bmm", re.IGNORECASE)),
    ("matrix products", re.compile(r"addmm|aten::mm|MmBackward|aten::linear", re.IGNORECASE)),
)
_EMBEDDING = re.compile("embedding", re.IGNORECASE)


def kind_of(event: Any) -> str:
    """Tell what an operator is for, by its name, those of the operators around it, and the shapes it was given."""
    chain = list(_outwards(event))
    names = [each.name for each in chain]
    shapes = [shape for each in chain for shape in each.input_shapes or [] if isinstance(shape, list)]
    for kind, pattern in _KINDS:
        if any(map(pattern.search, names)):
            # The logits' matrix has the vocabulary on one side; the embedding's is only looked up.
            of_vocabulary = any(VOCAB_SIZE in shape for shape in shapes)
            return "logits and cross-entropy" if kind == "matrix products" and of_vocabulary else kind
    if any(map(_EMBEDDING.search, names)):
        return _REST
    # Only attention knows of heads: batch x heads x tokens x tokens, or x width.
    return "attention" if any(len(shape) == 4 for shape in shapes) else _REST


def _outwards(event: Any) -> Iterator[Any]:
    while event is not None:
        yield event
        event = event.cpu_parent


def profiled(case: Case, updates: int) -> tuple[list[Any], float]:
    """Train, and return the operators of so many updates after the warm-up, and the seconds that they took."""
    # The profiler does not see into lanes, which are threads of their own: one core has none.
    torch.set_num_threads(1)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if case.device == "cuda" else [])]
    profiler = profile(activities=activities, record_shapes=True, acc_events=True)
    with tempfile.TemporaryDirectory() as output_dir:
        assignment = Assignment.model_validate_json(
            json.dumps(
                {
                    "spec": job_spec(case, dataset="by hand"),
                    "dataset": {"path": case.rows_path, "format": "jsonl"},
                    "output_dir": output_dir,
                    "device": case.device,
                }
            )
        )
        started = 0.0
        for fact in train(assignment, lambda: False):
            if isinstance(fact, Batch) and fact.step == case.warmup_updates:
                profiler.start()
                started = time.perf_counter()
            if isinstance(fact, Batch) and fact.step == case.warmup_updates + updates:
                break
        seconds = time.perf_counter() - started
        profiler.stop()
    events = profiler.events()
    return list(events or []), seconds


def report(events: list[Any], seconds: float, updates: int, device: Device) -> str:
    """Return the table."""
    by_kind: Counter[str] = Counter()
    rest: Counter[str] = Counter()
    for event in events:
        took = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        # On a GPU the kernels come once more as events of their own.
        if took <= 0 or event.device_type != DeviceType.CPU:
            continue
        kind = kind_of(event)
        by_kind[kind] += took
        if kind == _REST:
            rest[event.name] += took
    total = sum(by_kind.values())
    lines = [f"{kind:28}{took / updates / 1e3:9.2f} ms{took / total:8.1%}" for kind, took in by_kind.most_common()]
    largest = ", ".join(f"{name} {took / total:.1%}" for name, took in rest.most_common(5))
    return "\n".join(
        [
            f"{'':28}{'an update':>12}{'share':>8}",
            *lines,
            f"{'in all':28}{total / updates / 1e3:9.2f} ms, of {seconds / updates * 1e3:.2f} ms that an update took",
            f"the largest of {_REST}: {largest}",
        ]
    )


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.profile_step")
    parser.add_argument("--model", choices=MODELS, default="4m")
    parser.add_argument("--shape", choices=["ragged", "full"], default="ragged")
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5, help="updates that are not profiled")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    options = parser.parse_args()
    device: Device = options.device
    if options.device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    updates_per_epoch = options.warmup + options.updates + 1  # no end of an epoch in between
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        rows = make_rows(options.shape, updates_per_epoch * BATCH_SIZE)
        path.write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
        case = Case(
            rows_path=str(path),
            model=MODELS[options.model],
            vocab_size=VOCAB_SIZE,
            max_length=MAX_LENGTH,
            ragged=options.shape == "ragged",
            batch_size=BATCH_SIZE,
            accumulation=1,
            updates_per_epoch=updates_per_epoch,
            warmup_updates=options.warmup,
            seconds=0.0,
            seed=0,
            device=device,
        )
        events, seconds = profiled(case, options.updates)
    print(f"{options.model} {case.model}, {options.shape}, {device}, {options.updates} updates")
    print(report(events, seconds, options.updates, device))


if __name__ == "__main__":
    main()
