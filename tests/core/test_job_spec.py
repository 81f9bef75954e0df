"""The body of `POST /jobs`: strictly typed, sensible where silent, and the same after any journey through JSON."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from transformers import TrainingArguments

from core.job_spec import JobSpec, Training, ValidationFraction
from core.model_shapes import Gpt2Config


def _spec(text: str) -> JobSpec:
    return JobSpec.model_validate_json(text)


def _with(path: str, value: str) -> str:
    """Return a spec's JSON with a value, written as it is, at a path such as `training.epochs`."""
    for name in reversed(path.split(".")):
        value = f'{{"{name}": {value}}}'
    return value if path.split(".", maxsplit=1)[0] == "dataset" else '{"dataset": "ds_1", ' + value[1:]


INTS = [
    "training.epochs",
    "training.batch_size",
    "training.gradient_accumulation_steps",
    "training.warmup_steps",
    "training.seed",
    "training.log_every",
    "sequence.max_length",
    "sequence.stride",
    "sequence.min_length",
    "samples.max_new_tokens",
    "checkpoints.every_epochs",
    "checkpoints.every_steps",
    "checkpoints.keep",
    "tokenizer.train.vocab_size",
    "priority",
    "max_failures",
]
FLOATS = [
    "validation.fraction",
    "training.learning_rate",
    "training.warmup_ratio",
    "training.max_grad_norm",
    "training.weight_decay",
    "training.adam_beta1",
    "training.adam_beta2",
    "training.adam_epsilon",
    "samples.temperature",
]
NO_REPOSITORIES = [
    "", ".", "..", "../x", "/etc", "a/../b", "a/b/c", "a//b", "a/", "/b", "https://huggingface.co/gpt2", "gpt2@main",
    "a b", "a\\b", "-a", "a-", "a.", "a/b.git", "a--b", "a..b", "ä/b", "a/b\n", "a/b?c", "a/b%2e", "x" * 97, "~/b",
    "datasets/a/b",
]  # fmt: skip
NO_REVISIONS = ["", "..", "a/../b", "/a", "a/", "a//b", "a b", "a\n", "?", "a%2f", "x" * 201, "-a", "a:b"]
NO_ADAPTERS: list[Any] = [
    [], True, {"r": 0}, {"r": 1025}, {"r": 1.5}, {"alpha": 0}, {"dropout": 1.0}, {"dropout": -0.1}, {"merge": 1},
    {"target_modules": []}, {"target_modules": "all-linear"}, {"target_modules": ["a|b"]}, {"target_modules": [".*"]},
    {"target_modules": ["x"] * 101}, {"bias": "all"},
]  # fmt: skip
STRINGS = ["dataset", "name", "validation.dataset", "model.checkpoint.job", "tags.key"]


@pytest.mark.parametrize("path", INTS)
def test_a_whole_number_is_nothing_else(path: str) -> None:
    bad = ["true", "false", '"1"', "1.0", "1.5", "1e2", "[1]", "{}", "NaN", "Infinity", "1e999", "-1e999"]
    bad += [str(2**63), str(-(2**63) - 1), str(2**64), "9" * 400, "-1001"]
    bad += [] if path.endswith(("stride", "warmup_steps", "every_steps")) else ["null"]
    for value in bad:
        with pytest.raises(ValidationError):
            _spec(_with(path, value))


@pytest.mark.parametrize("path", FLOATS)
def test_a_number_is_finite_and_nothing_else(path: str) -> None:
    bad = [
        "true",
        "false",
        '"0.1"',
        "[0.1]",
        "{}",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        "-0.5",
        "9" * 400,
    ]
    bad += [] if path.endswith(("warmup_ratio", "max_grad_norm")) else ["1e300"]
    for value in bad:
        with pytest.raises(ValidationError):
            _spec(_with(path, value))


@pytest.mark.parametrize("name", ["two\\nlines", "\\u001b[31mred", "\\u2028", "\\u0085"])
def test_a_name_is_one_line_that_steers_no_terminal(name: str) -> None:
    with pytest.raises(ValidationError, match="one line without control characters"):
        _spec(f'{{"dataset": "ds_1", "name": "a{name}b"}}')


@pytest.mark.parametrize("path", STRINGS)
def test_a_string_is_text_that_every_database_can_hold(path: str) -> None:
    bad = [
        "1",
        "true",
        "null",
        "NaN",
        '["a"]',
        "{}",
        '""',
        '"a\\u0000b"',
        '"\\ud800"',
        '"a\x01"',
        '"' + "x" * 201 + '"',
    ]
    for value in bad:
        with pytest.raises(ValidationError):
            _spec(_with(path, value))


@pytest.mark.parametrize("where", ["", "validation", "tokenizer.train", "model", "model.config", "model.checkpoint"])
def test_an_unknown_field_is_refused_at_every_depth(where: str) -> None:
    for value in ("1", "null"):
        with pytest.raises(ValidationError):
            _spec(_with(f"{where}.nonsense".lstrip("."), value))


@pytest.mark.parametrize("where", ["sequence", "training", "samples", "checkpoints"])
def test_an_unknown_field_of_a_part_is_refused(where: str) -> None:
    with pytest.raises(ValidationError, match="nonsense"):
        _spec(_with(f"{where}.nonsense", "1"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "1",
        "NaN",
        '"x"',
        "{}",
        '{"dataset": "a"',
        '{"dataset": "a"} x',
        "\x00",
        "\ufeff{}",
        "{'a': 1}",
        "[" * 100000,
        '{"dataset": ' + "[" * 100000 + "]" * 100000 + "}",
        '{"dataset": "a", "tags": {"' + "x" * 10**6,
    ],
)
def test_what_is_no_spec_is_a_validation_error(text: str) -> None:
    with pytest.raises(ValidationError):
        _spec(text)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.epochs", "0"),
        ("training.seed", str(2**32)),
        ("training.precision", '"fp8"'),
        ("training.lr_scheduler", '"Linear"'),
        ("training", '{"warmup_steps": 1, "warmup_ratio": 0.1}'),
        ("training.learning_rate", "0"),
        ("training.adam_beta2", "1"),
        ("sequence", '{"max_length": 4, "stride": 5}'),
        ("sequence", '{"max_length": 4, "min_length": 5}'),
        ("sequence.max_length", "1"),
        ("sequence.mode", '"joined"'),
        ("sequence", '{"mode": "packed", "stride": 5}'),
        ("training.early_stopping_patience", "0"),
        ("samples.top_p", "0"),
        ("samples.top_p", "1.1"),
        ("samples.temperature", "-0.1"),
        ("validation", '{"fraction": 0.1, "dataset": "ds_2"}'),
        ("validation.fraction", "0"),
        ("validation.fraction", "0.51"),
        ("tokenizer", '"words"'),
        ("tokenizer.train.vocab_size", "256"),
        ("tokenizer.train.vocab_size", "262145"),
        ("tokenizer.train.special_tokens", '["<a>", "<a>"]'),
        ("tokenizer.train.special_tokens", '["<|endoftext|>"]'),
        ("tokenizer.train.special_tokens", '["a"]'),
        ("tokenizer.train.special_tokens", '["<a b>"]'),
        ("tokenizer.train.special_tokens", '["<\\u0007>"]'),
        ("tokenizer.train", '{"vocab_size": 257, "special_tokens": ["<a>"]}'),
        ("tokenizer", '{"upload": ""}'),
        ("tokenizer", '{"upload": "tok_1", "train": {}}'),
        ("model", '{"config": {"model_type": "gpt2"}, "checkpoint": {"job": "job_1"}}'),
        ("model.config", "{}"),
        ("model.config", '{"model_type": "bert"}'),
        ("model.config", '{"model_type": "gpt2", "hidden_size": 64}'),
        ("model.config", '{"model_type": "gpt2", "n_embd": 10, "n_head": 3}'),
        ("model.config", '{"model_type": "llama", "hidden_size": 12, "num_attention_heads": 4}'),
        ("model.config", '{"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 3}'),
        ("model.config", '{"model_type": "gpt2", "auto_map": {"AutoModel": "evil.Model"}}'),
        ("model.checkpoint", '{"job": "job_1", "epoch": 0}'),
        ("model.checkpoint", '{"job": "job_1", "epoch": "newest"}'),
        ("model.checkpoint", '{"job": "job_1", "epoch": "3"}'),
        ("model.checkpoint", '{"job": "job_1", "epoch": true}'),
        ("model.checkpoint", f'{{"job": "job_1", "epoch": {2**63}}}'),
        ("model", '{"hub": "gpt2", "checkpoint": {"job": "job_1"}}'),
        ("model", '{"hub": "gpt2", "config": {"model_type": "gpt2"}}'),
        ("model", '{"config": {"model_type": "gpt2"}, "lora": {}}'),
        ("model", '{"lora": {}}'),
        ("model", '{"revision": "main"}'),
        ("model", '{"hub": "gpt2", "revision": null}'),
        ("model", '{"hub": "gpt2", "trust_remote_code": true}'),
        *(("model.hub", json.dumps(name)) for name in NO_REPOSITORIES),
        *(("model", json.dumps({"hub": "gpt2", "revision": name})) for name in NO_REVISIONS),
        *(("model", json.dumps({"hub": "gpt2", "lora": lora})) for lora in NO_ADAPTERS),
        ("samples.prompts", json.dumps(["x"] * 21)),
        ("samples.prompts", json.dumps(["x" * 10_001])),
        ("samples.prompts", '["\\u0000"]'),
        ("samples.prompts", "[1]"),
        ("samples.prompts", '"x"'),
        ("tags", '{"": "x"}'),
        ("tags", '{"a": 1}'),
        ("tags", '{"\\u0000": "x"}'),
        ("tags", json.dumps({"x" * 101: "x"})),
    ],
)
def test_what_cannot_be_meant_is_refused(path: str, value: str) -> None:
    with pytest.raises(ValidationError):
        _spec(_with(path, value))


def test_only_the_dataset_is_required_and_the_rest_is_filled_in() -> None:
    spec = _spec('{"dataset": "ds_1"}')
    document = spec.document()
    assert document["training"]["learning_rate"] == 3e-4
    assert document["model"] == {"config": Gpt2Config(model_type="gpt2").model_dump()}
    assert document["validation"] == {"fraction": 0.05}
    assert document["checkpoints"] == {"every_epochs": 1, "every_steps": None, "keep": 5}
    assert (document["name"], document["priority"], document["max_failures"], document["tags"]) == (
        "untitled",
        0,
        3,
        {},
    )


FULL = """{"name": "docs é 😀", "dataset": "ds_1", "validation": {"fraction": 0.5}, "tokenizer": {"train": {}},
  "model": {"config": {"model_type": "llama", "rope_theta": 500, "tie_word_embeddings": true,
                       "num_key_value_heads": 2}},
  "sequence": {"max_length": 200, "stride": 100}, "samples": {"prompts": ["", "The"], "temperature": 1},
  "training": {"learning_rate": 1, "warmup_ratio": 1, "max_grad_norm": 2, "weight_decay": 0, "adam_epsilon": 1e-12},
  "checkpoints": {"every_steps": 7}, "priority": -1000, "tags": {"a": "b:c"}}"""
OTHERS = [
    '{"dataset": "ds_1"}',
    '{"dataset": "ds_1", "validation": null, "tokenizer": "bytes"}',
    '{"dataset": "ds_1", "tokenizer": {"upload": "tok_1"}}',
    '{"dataset": "ds_1", "tokenizer": {"train": {"vocab_size": 259, "special_tokens": ["<a>", "[题]"]}}}',
    '{"dataset": "ds_1", "validation": {"dataset": "ds_2"}, "model": {"checkpoint": {"job": "job_1"}}}',
    '{"dataset": "ds_1", "model": {"checkpoint": {"job": "job_1", "epoch": 3}, "lora": {"merge": true}}}',
    '{"dataset": "ds_1", "model": {"hub": "owner/a.b-c_d", "revision": "refs/pr/1"}}',
    '{"dataset": "ds_1", "model": {"hub": "gpt2", "lora": {"r": 4, "dropout": 0.1, "target_modules": ["c_attn"]}}}',
]


@pytest.mark.parametrize("text", [FULL, *OTHERS])
def test_a_stored_spec_is_read_back_as_it_was(text: str) -> None:
    spec = _spec(text)
    document = spec.document()
    # A worker reads it from the row; a trainer from the assignment's line. Numbers may have lost their ".0" on the way.
    for read in (document, json.loads(json.dumps(document)), _without_fractions(document)):
        assert JobSpec.model_validate(read) == spec
        assert JobSpec.model_validate_json(json.dumps(read)) == spec
        assert JobSpec.model_validate(read).document() == document
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec


def _without_fractions(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_fractions(inner) for key, inner in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _spec('{"dataset": "ds_1"}').priority = 1  # type: ignore[misc]


@given(st.integers(0, 10**9), st.floats(0.0, 0.5, exclude_min=True))
def test_a_held_out_share_leaves_something_on_both_sides(rows: int, fraction: float) -> None:
    held_out = ValidationFraction(fraction=fraction).held_out(rows)
    assert held_out == 0 if rows < 2 else 1 <= held_out < rows
    assert abs(held_out - rows * fraction) <= 1


def test_warmup_is_steps_or_a_share_of_them() -> None:
    assert [Training(warmup_steps=7).warmup(100), Training(warmup_ratio=0.1).warmup(100), Training().warmup(9)] == [
        7,
        10,
        0,
    ]


@pytest.mark.parametrize("ratio", [0.01, 0.05, 0.07, 0.1, 0.3, 1 / 3])
@pytest.mark.parametrize("steps", [1, 7, 50, 100])
def test_a_share_of_warmup_is_as_many_steps_as_with_transformers(ratio: float, steps: int) -> None:
    theirs = TrainingArguments(output_dir="unused", warmup_steps=ratio, use_cpu=True).get_warmup_steps(steps)
    assert Training(warmup_ratio=ratio).warmup(steps) == theirs


def test_early_stopping_needs_a_validation_loss() -> None:
    spec = {"dataset": "ds_1", "training": {"early_stopping_patience": 2}}
    JobSpec.model_validate(spec)
    with pytest.raises(ValidationError, match="give validation too"):
        JobSpec.model_validate(spec | {"validation": None})
