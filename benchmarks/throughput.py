"""How many tokens a second epochd trains on, beside the loop it comes from and beside transformers' Trainer.

    python -m benchmarks.throughput [--model 4m|25m|both] [--shape ragged|full|both] [--repeats 5] [--seconds 20]

All contenders see the same rows, the same GPT-2 (dropout 0.1), batch size, seed, AdamW with its linear warmup and the
same clipping, in float32 on a CPU and under bf16 autocast on a GPU. Each measurement is a process of its own; in every
round all contenders have a turn, each round starts with another one, and the machine's matrix products are timed too.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.case import Case, Device
from benchmarks.memory import device_memory
from benchmarks.rows import Shape, make_rows
from benchmarks.shapes import BATCH_SIZE, MAX_LENGTH, MODELS, VOCAB_SIZE, flops_per_token
from benchmarks.stopwatch import Measurement
from benchmarks.table import REFERENCE, Round, table

CONTENDERS = {
    "the teaching loop": ["benchmarks.teaching_loop"],
    "Trainer, defaults": ["benchmarks.transformers_trainer", "defaults"],
    "Trainer, tuned": ["benchmarks.transformers_trainer", "tuned"],
    REFERENCE: ["benchmarks.epochd_trainer"],
    "epochd, through the service": ["benchmarks.epochd_service"],
}
# Ragged rows need many batches for grouping by length to do what it does on a larger set; full ones need none. On a
# GPU an epoch of few batches would be over at once.
BATCHES: dict[Device, dict[Shape, int]] = {"cpu": {"ragged": 50, "full": 8}, "cuda": {"ragged": 200, "full": 200}}
WARMUP_UPDATES: dict[Device, int] = {"cpu": 3, "cuda": 50}


def run(module: list[str], case: Case, folder: Path) -> dict[str, Any]:
    """Run one process of a case, and return what its last line says. Raises RuntimeError with the end of its log."""
    case.write(folder / "case.json")
    # `auto` must mean the case's device to whoever decides for itself, as the service does.
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if case.device == "cpu" else {}
    command = [sys.executable, "-m", *module, str(folder / "case.json")]
    with (folder / "log").open("w+") as log:
        environment = os.environ | hidden
        done = subprocess.run(command, check=False, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        if done.returncode != 0:
            log.seek(0)
            raise RuntimeError(f"{' '.join(module)} failed:\n{log.read()[-4000:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def measure(name: str, case: Case, folder: Path) -> Measurement:
    """Give a contender its turn."""
    before = device_memory() if case.device == "cuda" else None
    measured = Measurement(**run(CONTENDERS[name], case, folder))
    if before is None or measured.device_memory is None:
        return measured
    return replace(measured, device_memory=measured.device_memory - before)


def one_round(number: int, case: Case, names: list[str], folder: Path, label: str) -> Round:
    """Time the matrix products, then give each contender its turn; the first is another one in each round."""
    peak = run(["benchmarks.matmul_peak"], case, folder)
    first = number % len(names)
    measurements = {}
    for name in names[first:] + names[:first]:
        measurements[name] = measured = measure(name, case, folder)
        print(f"{label}, round {number + 1}: {name} {measured.tokens_per_second:,.0f} tokens/s", file=sys.stderr)
    return Round(peak["square"], peak["shapes"], {name: measurements[name] for name in names})


def compare(model: str, shape: Shape, options: argparse.Namespace, device: Device) -> list[dict[str, Any]]:
    """Measure one model on one shape, print its table, and return the raw numbers."""
    batches = math.ceil((options.batches or BATCHES[device][shape]) / options.accumulation) * options.accumulation
    rows = make_rows(shape, batches * BATCH_SIZE)
    lengths = [len(row) - 1 for row in rows]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rows.jsonl").write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))
        case = Case(
            rows_path=str(folder / "rows.jsonl"),
            model=MODELS[model],
            vocab_size=VOCAB_SIZE,
            max_length=MAX_LENGTH,
            ragged=shape == "ragged",
            batch_size=BATCH_SIZE,
            accumulation=options.accumulation,
            updates_per_epoch=batches // options.accumulation,
            warmup_updates=WARMUP_UPDATES[device],
            seconds=options.seconds,
            seed=0,
            device=device,
        )
        # Another seed, and with it another order of the rows, in each round.
        label = f"{model} {shape}"
        rounds = [
            one_round(i, replace(case, seed=i), options.contenders, folder, label) for i in range(options.repeats)
        ]
    flops = flops_per_token(MODELS[model], lengths)
    print(
        f"\n{model} {MODELS[model]}, {shape}: {len(rows)} rows of {statistics.mean(lengths) + 1:.0f} tokens on average "
        f"and {MAX_LENGTH} at most, {sum(lengths):,} with loss in an epoch, {device}\n"
        f"matrix products: {statistics.median(r.square_flops for r in rounds) / 1e9:,.0f} GFLOP/s large and square, "
        f"{statistics.median(r.shapes_flops for r in rounds) / 1e9:,.0f} at the model's own shapes; "
        f"the model needs {flops / 1e6:.1f} MFLOP a token\n"
    )
    print(table(rounds, flops), flush=True)
    shared = {"model": model, "shape": shape, "device": device, "flops_per_token": flops}
    return [shared | {"round": number} | asdict(each) for number, each in enumerate(rounds, start=1)]


def options_from(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.throughput")
    parser.add_argument("--model", choices=[*MODELS, "both"], default="both")
    parser.add_argument("--shape", choices=["ragged", "full", "both"], default="both")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    parser.add_argument("--seconds", type=float, default=20.0, help="what a process measures: the nearest whole epochs")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--accumulation", type=int, default=1, help="batches of an update")
    parser.add_argument("--batches", type=int, help="of an epoch; default: enough for the shape and the device")
    parser.add_argument(
        "--contender", dest="contenders", action="append", choices=CONTENDERS, help="only this; may be repeated"
    )
    parser.add_argument("--json", type=Path, help="where the raw numbers go")
    options = parser.parse_args(arguments)
    wanted = set(options.contenders or CONTENDERS) | {REFERENCE}  # every ratio needs it
    options.contenders = [name for name in CONTENDERS if name in wanted]
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options, started = options_from(arguments), time.perf_counter()
    device: Device = options.device
    if options.device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    raw: list[dict[str, Any]] = []
    shapes: list[Shape] = ["ragged", "full"] if options.shape == "both" else [options.shape]
    for model in MODELS if options.model == "both" else [options.model]:
        for shape in shapes:
            raw += compare(model, shape, options, device)
            if options.json:
                options.json.write_text(json.dumps(raw, indent=1))
    print(f"\n{(time.perf_counter() - started) / 60:.0f} minutes in all", file=sys.stderr)


if __name__ == "__main__":
    main()
