"""The allow-list of shapes: exact sizes, refusals that say what to do, and nothing that transformers does not know."""

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from core.model_shapes import MODEL_TYPES, AnyShape, Gpt2Config, ModelConfig

ROTARY = sorted(MODEL_TYPES - {"gpt2"})
shapes: TypeAdapter[Any] = TypeAdapter(ModelConfig)


def shape(**fields: Any) -> Any:
    return shapes.validate_python(fields)


@st.composite
def any_shape(draw: st.DrawFn) -> Any:
    """A shape of any type, in numbers small enough to build."""
    kind = draw(st.sampled_from(sorted(MODEL_TYPES)))
    heads, layers = draw(st.sampled_from([1, 2, 4, 6])), draw(st.integers(1, 5))
    inner = draw(st.integers(8, 40))
    if kind == "gpt2":
        width = heads * draw(st.integers(8, 12))
        return shape(
            model_type=kind, n_layer=layers, n_head=heads, n_embd=width, n_inner=draw(st.none() | st.just(inner))
        )
    fields = {
        "model_type": kind,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": heads * draw(st.sampled_from([8, 16])),
        "intermediate_size": inner,
        "tie_word_embeddings": draw(st.booleans()),
    }
    known = type(shape(model_type=kind)).model_fields
    if "num_key_value_heads" in known:
        fields["num_key_value_heads"] = draw(st.none() | st.sampled_from([n for n in (1, 2, 3, 4) if heads % n == 0]))
    if "partial_rotary_factor" in known:
        fields["partial_rotary_factor"] = draw(st.sampled_from([0.25, 0.5, 1.0]))
    return shape(**fields)


@settings(max_examples=150, deadline=None)
@given(any_shape(), st.integers(2, 60), st.integers(2, 50))
def test_the_count_of_parameters_is_the_real_model_s(config: Any, vocab_size: int, positions: int) -> None:
    build = pytest.importorskip("worker.training.build")
    model = build.new_model(config, vocab_size=vocab_size, max_length=positions, end_of_text=0, seed=0)
    assert config.parameters(vocab_size, positions) == sum(weight.numel() for weight in model.parameters())


def test_the_default_of_each_is_small() -> None:
    assert len(MODEL_TYPES) == len(get_args(AnyShape))
    for kind in MODEL_TYPES:
        assert 3_000_000 < shape(model_type=kind).parameters(257, 256) < 4_000_000, kind


@pytest.mark.parametrize("kind", ROTARY)
def test_widths_that_do_not_divide_are_refused_with_both_numbers(kind: str) -> None:
    for width, heads in ((10, 4), (12, 4), (64, 5)):
        with pytest.raises(
            ValidationError, match=rf"hidden_size \({width}\) must be an even multiple of .*\({heads}\)"
        ):
            shape(model_type=kind, hidden_size=width, num_attention_heads=heads)
    if kind != "gpt_neox":
        with pytest.raises(ValidationError, match=r"num_attention_heads \(4\) must be a multiple of .*\(3\)"):
            shape(model_type=kind, num_key_value_heads=3)


@pytest.mark.parametrize("kind", ["gpt_neox", "phi", "stablelm"])
@pytest.mark.parametrize("factor", [0.01, 0.05, 0.95])
def test_the_part_of_a_head_that_is_turned_is_even(kind: str, factor: float) -> None:
    with pytest.raises(ValidationError, match="make that an even number"):
        shape(model_type=kind, hidden_size=64, num_attention_heads=4, partial_rotary_factor=factor)


def test_what_is_not_on_the_list_is_refused() -> None:
    cases: list[dict[str, Any]] = [
        {"model_type": "granite"},
        {"model_type": "mistral", "sliding_window": 4096},
        {"model_type": "qwen2", "use_sliding_window": True},
        {"model_type": "gpt_neox", "num_key_value_heads": 1},
        {"model_type": "llama", "partial_rotary_factor": 0.5},
        {"model_type": "llama", "hidden_size": 32_769},
        {"model_type": "phi", "resid_pdrop": 1.0},
        {"model_type": "llama", "rope_theta": 0.0},
        {"model_type": "llama", "auto_map": {"AutoModel": "evil.Model"}},
    ]
    for fields in cases:
        with pytest.raises(ValidationError):
            shape(**fields)


def test_gpt2_s_heads_divide_its_width() -> None:
    with pytest.raises(ValidationError, match=r"n_embd \(10\) must be a multiple of n_head \(3\)"):
        Gpt2Config(model_type="gpt2", n_embd=10, n_head=3)
