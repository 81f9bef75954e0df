"""LoRA: only the adapter learns, what is published loads, and a resumed run goes on bit for bit."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.errors import DataError
from core.model_shapes import MODEL_TYPES
from tests.worker.training.tiny import (
    GPT2,
    LLAMA,
    assignment,
    last_checkpoint,
    of,
    prepared,
    ragged_rows,
    run,
    texts,
)
from worker.training import checkpoints
from worker.training.assignment import Assignment
from worker.training.errors import Diverged
from worker.training.facts import Batch, Checkpoint, Planned, Sample
from worker.training.preparation import Run, prepare

IDS = torch.tensor([[1, 2, 3, 4, 5, 6]])
# Dropout, accumulation with a trailing window, validation and samples.
SPEC: dict[str, Any] = {
    "validation": {"fraction": 0.2},
    "training": {"epochs": 2, "batch_size": 4, "gradient_accumulation_steps": 3, "learning_rate": 0.01},
    "samples": {"prompts": ["the import"], "max_new_tokens": 5},
    "checkpoints": {"every_steps": 1},
}


def base_model(folder: Path, config: dict[str, Any], rows: list[Any] | None = None) -> Path:
    """The `model/` folder of an earlier job."""
    job = assignment(folder, rows or texts(20), model={"config": config}, training={"epochs": 1, "learning_rate": 0.01})
    return last_checkpoint(run(job)) / "model"


def lora_job(folder: Path, base: Path, lora: dict[str, Any], rows: list[Any] | None = None, **spec: Any) -> Assignment:
    """A run that trains an adapter on an earlier job's model."""
    model = {"checkpoint": {"job": "job_1", "epoch": 3}, "lora": lora}
    job = assignment(folder, rows or texts(20, seed=1), **SPEC | {"tokenizer": None, "model": model} | spec)
    return job.model_copy(update={"base_model": base})


def everything(checkpoint: Path) -> str:
    """The sha256 over every file of a checkpoint but the one with its times."""
    digest = hashlib.sha256()
    for path in sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != "run_state.json"):
        digest.update(path.relative_to(checkpoint).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model.train(mode=False)(IDS).logits
    return result


@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_the_published_adapter_works_on_its_base_and_carries_its_tokenizer(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    base = base_model(tmp_path / "base", config)
    facts = run(lora_job(tmp_path / "lora", base, {"r": 4, "dropout": 0.1}))
    assert len(of(facts, Sample)) == 2
    folder = last_checkpoint(facts) / "model"
    names = {path.name for path in folder.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert len(AutoTokenizer.from_pretrained(folder)) == 257
    plain = AutoModelForCausalLM.from_pretrained(base)
    before = logits(plain)
    adapted = logits(PeftModel.from_pretrained(plain, folder))
    assert (adapted - before).abs().max() > 1e-3
    losses = [batch.loss for batch in of(facts, Batch)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_merged_it_is_a_plain_model_that_says_the_same(tmp_path: Path, config: dict[str, Any]) -> None:
    base = base_model(tmp_path / "base", config)
    alone = last_checkpoint(run(lora_job(tmp_path / "alone", base, {"r": 4})))
    merged = last_checkpoint(run(lora_job(tmp_path / "merged", base, {"r": 4, "merge": True})))
    plain = AutoModelForCausalLM.from_pretrained(merged / "model")
    assert not any("lora" in name for name in plain.state_dict())
    assert set(load_file(merged / "model" / "model.safetensors")) == set(load_file(base / "model.safetensors"))
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), alone / "model")
    torch.testing.assert_close(logits(plain), logits(adapted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(MODEL_TYPES))
def test_every_architecture_takes_one_and_merges_it(tmp_path: Path, kind: str) -> None:
    size = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    base = base_model(tmp_path / "base", {"model_type": kind, **(size if kind != "gpt2" else GPT2)}, ragged_rows(8))
    spec = {"rows": ragged_rows(8, seed=1), "samples": {}, "validation": None, "training": {"epochs": 1}}
    alone = last_checkpoint(run(lora_job(tmp_path / "alone", base, {}, **spec)))
    merged = last_checkpoint(run(lora_job(tmp_path / "merged", base, {"merge": True}, **spec)))
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), alone / "model")
    plain = AutoModelForCausalLM.from_pretrained(merged / "model")
    torch.testing.assert_close(logits(plain), logits(adapted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("merge", "cores"), [(False, 1), (True, 1), (False, 2)], ids=["alone", "merged", "in lanes"])
def test_resumed_from_any_checkpoint_the_run_ends_in_the_same_bytes(tmp_path: Path, merge: bool, cores: int) -> None:
    torch.set_num_threads(cores)
    job = lora_job(tmp_path / "lora", base_model(tmp_path / "base", GPT2), {"r": 4, "dropout": 0.2, "merge": merge})
    told = of(run(job), Checkpoint)
    assert [checkpoint.step for checkpoint in told] == [1, 2, 3, 4]
    for checkpoint in told[:-1]:
        update = {"resume_from": checkpoint.path, "output_dir": tmp_path / f"from-{checkpoint.step}"}
        later = last_checkpoint(run(job.model_copy(update=update)))
        assert everything(later) == everything(told[-1].path), checkpoint.step


def test_only_the_adapter_is_trained_and_held_by_the_optimizer(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", GPT2)
    facts = run(lora_job(tmp_path / "lora", base, {"r": 4, "merge": True}))
    state = last_checkpoint(facts) / "state"
    adapter, optimizer = load_file(state / "adapter.safetensors"), load_file(state / "optimizer.safetensors")
    assert {name.split("/", 1)[1] for name in optimizer} == set(adapter)
    assert all(".lora_" in name for name in adapter)
    # All four kinds of a block's layers, twice, with two matrices each.
    assert len(adapter) == 2 * 4 * 2
    before, after = load_file(base / "model.safetensors"), load_file(last_checkpoint(facts) / "model/model.safetensors")
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert changed == {name for name in before if ".c_" in name and name.endswith(".weight")}
    whole = sum(weight.numel() for weight in before.values()) + sum(weight.numel() for weight in adapter.values())
    assert of(facts, Planned)[0].parameters == whole


def test_checkpointed_gradients_are_the_same(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", LLAMA)
    plain, checkpointed = (
        run(
            lora_job(
                tmp_path / name, base, {"r": 4}, training=SPEC["training"] | {"gradient_checkpointing": name == "b"}
            )
        )
        for name in "ab"
    )
    losses = [[batch.loss for batch in of(facts, Batch)] for facts in (plain, checkpointed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert losses[0][-1] < losses[0][0]


def test_the_config_names_the_base_and_no_path(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", GPT2)
    job = lora_job(tmp_path / "lora", base, {"r": 4, "alpha": 32})
    text = (last_checkpoint(run(job)) / "model" / "adapter_config.json").read_text()
    config = json.loads(text)
    assert config["base_model_name_or_path"] == "job_1 epoch 3"
    assert (config["r"], config["lora_alpha"], config["task_type"], config["fan_in_fan_out"]) == (
        4,
        32,
        "CAUSAL_LM",
        True,
    )
    assert config["target_modules"] == sorted(config["target_modules"])
    assert str(tmp_path) not in text
    hub = job.spec.model_copy(update={"model": type(job.spec).model_validate(
        {"dataset": "x", "model": {"hub": "owner/name", "revision": "a" * 40, "lora": {}}}
    ).model})  # fmt: skip
    text = (last_checkpoint(run(job.model_copy(update={"spec": hub}))) / "model" / "adapter_config.json").read_text()
    assert json.loads(text)["base_model_name_or_path"] == "owner/name"
    assert json.loads(text)["revision"] == "a" * 40
    assert str(tmp_path) not in text


def test_target_modules_are_those_asked_for(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", GPT2)
    job = lora_job(tmp_path / "lora", base, {"target_modules": ["c_attn", "h.0.mlp.c_fc"]})
    ready: Run = prepared(prepare(job))
    assert ready.learner.adapter
    layers = {name.split(".lora_")[0] for name in ready.learner.adapter.tensors()}
    assert layers == {"transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn", "transformer.h.0.mlp.c_fc"}
    held = [weight for group in ready.learner.optimizer.param_groups for weight in group["params"]]
    assert len(held) == 2 * len(layers), "the optimizer holds the adapter alone"


@pytest.mark.parametrize("target", ["lm_head", "wte", "ln_1", "attn", "q_proj", "_attn"])
def test_target_modules_that_the_model_lacks_are_a_data_error(tmp_path: Path, target: str) -> None:
    base = base_model(tmp_path / "base", GPT2)
    with pytest.raises(DataError, match=target) as caught:
        run(lora_job(tmp_path / "lora", base, {"target_modules": ["c_attn", target]}))
    assert "c_attn, c_fc, c_proj" in caught.value.hint


def test_a_merged_adapter_is_a_model_to_go_on_from(tmp_path: Path) -> None:
    base = base_model(tmp_path / "base", GPT2)
    first = last_checkpoint(run(lora_job(tmp_path / "first", base, {"merge": True})))
    second = run(lora_job(tmp_path / "second", first / "model", {"merge": True}))
    AutoModelForCausalLM.from_pretrained(last_checkpoint(second) / "model")
    third = assignment(
        tmp_path / "third", texts(20), tokenizer=None, model={"checkpoint": {"job": "job_2", "epoch": 1}}
    )
    run(third.model_copy(update={"base_model": last_checkpoint(second) / "model"}))


def test_a_weight_that_is_not_finite_is_not_published(tmp_path: Path) -> None:
    ready: Run = prepared(prepare(lora_job(tmp_path / "lora", base_model(tmp_path / "base", GPT2), {})))
    assert ready.learner.adapter
    next(iter(ready.learner.adapter.tensors().values()))[0, 0] = float("nan")
    with pytest.raises(Diverged):
        checkpoints.save(ready.output_dir, ready.learner, ready.tokenizer, ready.state)


def test_without_an_adapter_peft_is_not_imported() -> None:
    program = "import worker.training.loop, sys; print('peft' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )
