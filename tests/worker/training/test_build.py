"""Models and optimizers as the spec asks for them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.job_spec import NewModel
from tests.worker.training.tiny import GPT2, LLAMA, learner
from worker.training import build
from worker.training.errors import DataError


@pytest.mark.parametrize("config", [GPT2 | {"n_inner": 40}, LLAMA | {"rope_theta": 500.0}], ids=["gpt2", "llama"])
def test_a_new_model_is_what_the_config_says(config: dict[str, Any], tmp_path: Path) -> None:
    spec = NewModel.model_validate({"config": config}).config
    model = build.new_model(spec, vocab_size=31, max_length=17, end_of_text=3, seed=0)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).config
    for name, value in config.items():
        if name != "rope_theta":
            assert getattr(loaded, name) == value, name
    assert (loaded.vocab_size, loaded.max_position_embeddings) == (31, 17)
    assert (loaded.bos_token_id, loaded.eos_token_id) == (3, 3)
    if config["model_type"] == "llama":
        assert loaded.rope_parameters["rope_theta"] == 500.0
        assert model.get_input_embeddings().weight[3].abs().sum() > 0, "the end of text must not be frozen at zero"


def test_weights_follow_from_the_seed_alone() -> None:
    spec = NewModel().config

    def weight(seed: int) -> torch.Tensor:
        return build.new_model(spec, vocab_size=9, max_length=4, end_of_text=None, seed=seed).lm_head.weight

    first = weight(1)
    torch.rand(10)
    assert torch.equal(first, weight(1))
    assert not torch.equal(first, weight(2))


def test_one_kernel_gelu_is_the_same_function_and_stays_out_of_the_config(tmp_path: Path) -> None:
    tiny = learner()
    tiny.model.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert plain.config.activation_function == "gelu_new"
    inputs = torch.arange(20)[None]
    tiny.model.train(mode=False)
    torch.testing.assert_close(tiny.model(inputs).logits, plain(inputs).logits, rtol=1e-5, atol=1e-6)


def test_biases_and_norms_do_not_decay() -> None:
    tiny = learner(weight_decay=0.3)
    names = {parameter: name for name, parameter in tiny.model.named_parameters()}
    decay = {names[p]: group["weight_decay"] for group in tiny.optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(names)
    assert {name for name, rate in decay.items() if rate == 0} == {n for n in decay if "ln_" in n or "bias" in n}
    assert set(decay.values()) == {0.0, 0.3}


def test_too_few_positions_are_a_data_error(tmp_path: Path) -> None:
    learner().model.save_pretrained(tmp_path)
    build.load_model(tmp_path, max_length=128)
    with pytest.raises(DataError, match=r"128 positions, fewer than sequence\.max_length"):
        build.load_model(tmp_path, max_length=129)


def test_weights_in_a_pickle_are_refused(tmp_path: Path) -> None:
    model = learner().model
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        build.load_model(tmp_path, max_length=128)
