"""Every model on the allow-list trains as transformers' own would, and comes back from its checkpoint as it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from core.model_shapes import MODEL_TYPES
from core.model_spec import NewModel
from tests.worker.training.tiny import GPT2, assignment, last_checkpoint, learner, of, ragged_rows, run, sequences
from worker.training.facts import Batch, Planned

# Four layers: SmolLM3 is different in every fourth.
SMALL = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    kind: {"model_type": kind, **SMALL, **({"num_key_value_heads": 2} if kind != "gpt_neox" else {})}
    for kind in sorted(MODEL_TYPES - {"gpt2"})
}
CONFIGS["gpt2"] = GPT2 | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
CONFIGS["gpt_neox, one after the other"] = CONFIGS["gpt_neox"] | {"use_parallel_residual": False}
CONFIGS["phi, tied"] = CONFIGS["phi"] | {"tie_word_embeddings": True, "partial_rotary_factor": 1.0}
# All that drops anything out, so that a run without them is told apart.
DROPOUTS = ("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "residual_dropout", "embedding_dropout")

each = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@each
def test_loss_and_gradient_are_the_model_s_own(config: dict[str, Any]) -> None:
    rows = ragged_rows(12)
    tiny, cut = learner(config), sequences(rows)
    with torch.no_grad():
        for weight in tiny.model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)  # biases and norms too must matter
    longest = max(map(len, rows))

    def padded(value: int) -> torch.Tensor:
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    tiny.model.set_attn_implementation("eager")
    theirs = tiny.model(input_ids=padded(0), attention_mask=mask, labels=padded(-100)).loss
    theirs.backward()
    gradients = [weight.grad.clone() for weight in tiny.model.parameters()]
    tiny.model.zero_grad()
    tiny.model.set_attn_implementation("epochd")
    total, _ = tiny.token_loss(cut, np.arange(len(rows)))
    ours = total / cut.loss_tokens.sum()
    ours.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    for weight, gradient in zip(tiny.model.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-6)


@each
def test_packed_rows_cost_what_they_cost_one_by_one(config: dict[str, Any]) -> None:
    rows = ragged_rows(8, longest=16)
    tiny = learner(config)
    alone, packed = sequences(rows), sequences(rows, max_length=128, mode="packed")
    assert (len(alone), len(packed)) == (8, 1)
    one_by_one = sum(tiny.token_loss(alone, np.array([row]))[0].item() for row in range(8))
    together, _ = tiny.token_loss(packed, np.array([0]))
    assert together.item() == pytest.approx(one_by_one, rel=1e-5)


@each
def test_a_run_learns_and_its_checkpoint_is_the_model(config: dict[str, Any], tmp_path: Path) -> None:
    training = {"epochs": 6, "batch_size": 8, "learning_rate": 0.01}
    facts = run(assignment(tmp_path, [[1, 2, 3, 4, 5, 6, 7, 8]] * 16, model={"config": config}, training=training))
    losses = [batch.loss for batch in of(facts, Batch)]
    assert losses[-1] < losses[0] / 1.5
    folder = last_checkpoint(facts) / "model"
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert plain.config.model_type == config["model_type"]
    assert getattr(plain.config, "sliding_window", None) is None
    assert sum(weight.numel() for weight in plain.parameters()) == of(facts, Planned)[0].parameters
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])
    with torch.no_grad():
        assert plain(input_ids=ids, labels=ids).loss.item() < losses[0] / 1.5
    generated = plain.generate(input_ids=ids[:, :2], attention_mask=torch.ones(1, 2), max_new_tokens=4, do_sample=False)
    assert generated.shape == (1, 6)


@pytest.mark.parametrize("kind", sorted(MODEL_TYPES - {"gpt2"}))
def test_each_dropout_drops_something(kind: str) -> None:
    cut, rows = sequences(ragged_rows(6)), np.arange(6)
    plain, _ = learner(CONFIGS[kind]).token_loss(cut, rows)
    known = set(NewModel.model_validate({"config": CONFIGS[kind]}).model_dump()["config"]) & set(DROPOUTS)
    assert known
    for name in known:
        dropped, _ = learner(CONFIGS[kind] | {name: 0.5}).token_loss(cut, rows)
        assert dropped.item() != plain.item(), name
