"""Models and optimizers as the spec asks for them."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.errors import DataError
from core.model_spec import NewModel
from tests.worker.training.tiny import GPT2, LLAMA, learner
from worker.training import build


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


def saved(folder: Path, config: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A small model in a folder, as someone else could have left it there."""
    learner(config).model.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def refused(folder: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        build.load_model(folder, max_length=64)
    assert caught.value.hint
    return caught.value


def test_within_a_sliding_window_it_makes_no_difference_and_beyond_it_is_refused(tmp_path: Path) -> None:
    mistral = LLAMA | {"model_type": "mistral"}
    build.load_model(saved(tmp_path, mistral, sliding_window=64), max_length=64)
    assert "63 positions" in str(refused(saved(tmp_path, mistral, sliding_window=63)))


def test_weights_in_a_pickle_are_refused(tmp_path: Path) -> None:
    model = learner().model
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert "no weights in safetensors" in str(refused(tmp_path))


def test_a_pickle_beside_safetensors_is_not_opened(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    saved(tmp_path)
    for name in ("pytorch_model.bin", "training_args.bin", "model.pt"):
        (tmp_path / name).write_bytes(pickle.dumps(Evil()))
    build.load_model(tmp_path, max_length=64)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_comes_with_a_model_is_refused(tmp_path: Path, file: str) -> None:
    (saved(tmp_path) / "evil.py").write_text("raise SystemExit('executed')")
    path = tmp_path / file
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(config | {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    assert "brings code of its own" in str(refused(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "'bert' cannot be trained"),
        ({"model_type": None}, "'None' cannot be trained"),
        ({"model_type": ["gpt2"]}, "cannot be trained"),
        ({"attn_implementation": "someone/kernel"}, "code of its own"),
        ({"_attn_implementation": "someone/kernel"}, "code of its own"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized"),
        ({"n_layer": 3}, "lack weights, such as transformer.h.2"),
        ({"n_embd": 8}, "cannot be loaded"),
        ({"n_head": "x"}, "cannot be loaded"),
    ],
)
def test_a_config_that_cannot_be_used_says_why(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert message in str(refused(saved(tmp_path, **changes)))


@pytest.mark.parametrize("text", ["", "[]", "x", "[" * 100_000])
def test_a_config_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (saved(tmp_path) / "config.json").write_text(text)
    assert "not a JSON object" in str(refused(tmp_path))
    (tmp_path / "config.json").unlink()
    assert "no config.json" in str(refused(tmp_path))


def test_damaged_weights_are_a_data_error(tmp_path: Path) -> None:
    weights = saved(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot be loaded" in str(refused(tmp_path))


def test_weights_that_are_no_numbers_are_a_data_error(tmp_path: Path) -> None:
    model = learner().model
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.bias[3] = float("nan")
    model.save_pretrained(tmp_path)
    assert "no finite numbers, in transformer.h.1.mlp.c_fc.bias" in str(refused(tmp_path))


def test_precision_is_float32_on_the_cpu_unless_asked_for() -> None:
    dtypes = [learner(precision=precision).token_loss._dtype for precision in ("auto", "fp32", "bf16", "fp16")]
    assert dtypes == [torch.float32, torch.float32, torch.bfloat16, torch.float16]


def test_the_optimizer_is_the_one_asked_for() -> None:
    asked = {"adam_beta1": 0.5, "adam_beta2": 0.6, "adam_epsilon": 0.25, "learning_rate": 0.125}
    for group in learner(**asked).optimizer.param_groups:
        assert (group["betas"], group["eps"], group["lr"], group["fused"]) == ((0.5, 0.6), 0.25, 0.125, True)


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    model = learner(LLAMA).model.to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    loaded = build.load_model(tmp_path, max_length=64)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.float())
    loaded.save_pretrained(tmp_path / "again")
    again = (tmp_path / "again" / "config.json").read_text()
    assert json.loads(again)["dtype"] == "float32"
    assert str(tmp_path) not in again


def test_padding_that_is_the_end_of_text_too_is_learnt(tmp_path: Path) -> None:
    model = build.load_model(saved(tmp_path, LLAMA, pad_token_id=0, eos_token_id=0), max_length=64)
    model(input_ids=torch.tensor([[0, 1, 0]]), labels=torch.tensor([[0, 1, 0]])).loss.backward()
    assert model.get_input_embeddings().weight.grad[0].abs().sum() > 0


def test_a_model_s_own_way_of_generating_does_not_keep_it_from_being_saved(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"do_sample": false, "top_p": 0.6, "eos_token_id": 7}')
    model = build.load_model(tmp_path, max_length=64)
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "generation_config.json").read_text())["eos_token_id"] == 7
