"""What only a GPU can show: nothing waits for it, the same bits after a resume, half precision, a full memory."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.job_spec import JobSpec
from tests.worker.training.test_resume import SPEC, resumed, told
from tests.worker.training.tiny import (
    GPT2,
    LLAMA,
    NO_DROPOUT,
    assignment,
    fingerprint,
    last_checkpoint,
    of,
    ragged_rows,
    run,
    sequences,
    texts,
)
from worker.training import build
from worker.training.assignment import Assignment
from worker.training.facts import Batch, Checkpoint
from worker.training.update import MemoryBudget, Outcome, update

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU; what a CPU can show has its own test"
)

SHAPES = {"gpt2": GPT2 | {"n_embd": 64}, "llama": LLAMA | {"hidden_size": 64, "intermediate_size": 128}}


def on_gpu(job: Assignment) -> Assignment:
    return job.model_copy(update={"device": "cuda"})


def learner(config: dict[str, Any], **training: Any) -> build.Learner:
    spec = JobSpec.model_validate({"dataset": "ds", "model": {"config": config}, "training": training})
    model = build.new_model(
        spec.model.config,  # type: ignore[union-attr]
        vocab_size=50,
        max_length=128,
        end_of_text=0,
        seed=0,
    )
    return build.make_learner(model, spec.training, build.pick_device("cuda"))


def updates(learner: build.Learner, data: Any, *, count: int) -> Iterator[Outcome]:
    rows = torch.arange(len(data)).numpy()
    for step in range(count):
        window = [rows[:4], rows[4:8]]
        yield update(
            learner,
            data,
            window,
            learning_rate=1e-3,
            max_grad_norm=1.0,
            budget=MemoryBudget(),
            dropout=(0, step),
        )


@pytest.mark.parametrize("mode", ["document", "packed"])
@pytest.mark.parametrize("config", SHAPES)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_no_update_waits_for_the_device(config: str, mode: str, precision: str) -> None:
    trained = learner(SHAPES[config], precision=precision)
    data = sequences(ragged_rows(40), max_length=16, mode=mode)
    list(updates(trained, data, count=3))
    torch.cuda.set_sync_debug_mode("error")
    try:
        outcomes = list(updates(trained, data, count=4))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(outcome.read().applied for outcome in outcomes)


def test_numbers_are_read_while_the_device_is_still_at_the_next_window() -> None:
    trained = learner(SHAPES["gpt2"], precision="fp32")
    data = sequences(ragged_rows(40), max_length=16)
    list(updates(trained, data, count=3))
    torch.cuda.synchronize()
    [outcome] = updates(trained, data, count=1)
    torch.cuda._sleep(2_000_000_000)  # cycles: a second or more
    assert outcome.read().applied
    assert not torch.cuda.current_stream().query(), "it was waited for"
    torch.cuda.synchronize()


def test_products_of_float32_are_not_rounded_to_tf32() -> None:
    build.pick_device("cuda")
    left, right = (
        torch.randn(512, 512, device="cuda", generator=torch.Generator("cuda").manual_seed(s)) for s in (0, 1)
    )
    exact = left.double() @ right.double()
    assert ((left @ right).double() - exact).abs().max() < 1e-3, "TF32 has ten bits, and is off by hundredths"


def test_precision_is_bf16_where_the_device_computes_it() -> None:
    can = torch.cuda.get_device_capability() >= (8, 0)
    assert learner(SHAPES["gpt2"]).token_loss._dtype == (torch.bfloat16 if can else torch.float32)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("mode", ["document", "packed"])
def test_a_resumed_run_ends_in_the_same_bits(tmp_path: Path, precision: str, mode: str) -> None:
    spec = SPEC | {
        "training": SPEC["training"] | {"precision": precision},
        "sequence": {"max_length": 64, "mode": mode},
    }
    job = on_gpu(assignment(tmp_path, texts(40), **spec))
    facts = run(job)
    assert fingerprint(last_checkpoint(run(job))) == fingerprint(last_checkpoint(facts)), "twice the same run"
    checkpoints = of(facts, Checkpoint)
    for checkpoint in checkpoints[1:-1:2]:
        later = run(resumed(job, checkpoint.path, tmp_path / f"from-{checkpoint.step}"))
        assert fingerprint(last_checkpoint(later)) == fingerprint(checkpoints[-1].path)
        assert told(later) == told(facts[facts.index(checkpoint) + 1 :])


@pytest.mark.parametrize(
    ("training", "tolerance"),
    [
        ({"precision": "fp32"}, 1e-4),
        ({"precision": "fp32", "gradient_checkpointing": True}, 1e-4),
        ({"precision": "fp32", "compile": True}, 1e-4),
        ({"precision": "bf16"}, 2e-2),
        ({"precision": "fp16"}, 5e-3),
    ],
    ids=["fp32", "checkpointing", "compile", "bf16", "fp16"],
)
@pytest.mark.parametrize("mode", ["document", "packed"])
def test_the_losses_are_those_of_the_cpu(tmp_path: Path, training: dict[str, Any], tolerance: float, mode: str) -> None:
    common = {"epochs": 3, "batch_size": 4, "learning_rate": 0.003}
    model = {"config": GPT2 | NO_DROPOUT | {"n_embd": 64}}
    sequence = {"max_length": 32, "mode": mode}
    rows = ragged_rows(40, longest=30)
    cpu = assignment(tmp_path / "cpu", rows, model=model, sequence=sequence, training=common | {"precision": "fp32"})
    gpu = on_gpu(assignment(tmp_path / "gpu", rows, model=model, sequence=sequence, training=common | training))
    ours, theirs = of(run(gpu), Batch), of(run(cpu), Batch)
    # A window whose gradient left half precision's range was skipped: one step behind from then on.
    skipped = sum(batch.grad_norm is None for batch in ours)
    assert len(ours) == len(theirs)
    assert skipped <= 2
    for ours_, theirs_ in zip(ours, theirs, strict=True):
        assert ours_.loss == pytest.approx(theirs_.loss, rel=tolerance + 0.05 * skipped)


def test_a_full_memory_splits_the_batch_and_keeps_the_gradient() -> None:
    data = sequences(ragged_rows(512, longest=128), max_length=128)
    rows = torch.arange(len(data)).numpy()
    config = GPT2 | NO_DROPOUT | {"n_embd": 512, "n_layer": 4}
    numbers = []
    for share in (None, 0.015):
        torch.cuda.empty_cache()
        trained = learner(config, precision="fp32")
        if share:
            torch.cuda.set_per_process_memory_fraction(share)
        try:
            outcome = update(
                trained, data, [rows], learning_rate=0.0, max_grad_norm=1.0, budget=MemoryBudget(), dropout=(0, 0)
            )
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        numbers.append((outcome.read(), outcome.splits))
        del trained, outcome
    (whole, unsplit), (pieces, splits) = numbers
    assert not unsplit
    assert splits
    assert math.isclose(whole.grad_norm, pieces.grad_norm, rel_tol=1e-5)
    assert whole.losses == pytest.approx(pieces.losses, rel=1e-6)
