"""The plan before the start: sizes that are exact, limits that are named, and jobs that could never run."""

from typing import Any

import pytest

from core import submission
from core.errors import InvalidInput
from core.model_shapes import Gpt2Config
from tests.house import House


def _plan(house: House, **fields: Any) -> dict[str, Any]:
    with house.work.reading() as session:
        return submission.prepare(session, house.owner_id, house.spec(**fields), house.limits).plan.model_dump()


def _refused(house: House, **fields: Any) -> tuple[str, tuple[str | int, ...]]:
    with pytest.raises(InvalidInput) as caught:
        _plan(house, **fields)
    (fault,) = caught.value.faults
    return caught.value.detail, fault.loc


def test_a_plan_counts_what_is_known(house: House) -> None:
    plan = _plan(house, validation={"fraction": 0.1})
    assert (plan["rows"], plan["validation_rows"], plan["skipped_rows"]) == (90, 10, 0)
    assert plan["parameters"] == Gpt2Config(model_type="gpt2").parameters(4096, 256)
    assert (plan["steps"], plan["batches_per_epoch"], plan["tokens_per_epoch"], plan["warnings"]) == (None,) * 3 + ([],)
    assert _plan(house, tokenizer="bytes")["parameters"] == Gpt2Config(model_type="gpt2").parameters(257, 256)
    other = house.new_dataset(rows=7)
    plan = _plan(house, validation={"dataset": other})
    assert (plan["rows"], plan["validation_rows"]) == (100, 7)
    assert _plan(house, validation=None)["validation_rows"] == 0


def test_of_token_ids_the_largest_decides(house: House) -> None:
    small, large = house.new_dataset(ids_up_to=99), house.new_dataset(ids_up_to=499)
    config = Gpt2Config(model_type="gpt2")
    assert _plan(house, dataset=small)["parameters"] == config.parameters(100, 256)
    plan = _plan(house, dataset=small, validation={"dataset": large})
    assert plan["parameters"] == config.parameters(500, 256)


def test_what_will_surprise_is_said(house: House) -> None:
    house.dataset_id = house.new_dataset(rows=1)
    warnings = " ".join(_plan(house, training={"warmup_ratio": 1.0})["warnings"])
    assert "one row" in warnings
    assert "to the very end" in warnings


def test_a_model_over_the_limit_is_refused_with_the_limit(house: House) -> None:
    huge = {"config": {"model_type": "gpt2", "n_layer": 200, "n_embd": 32_768, "n_head": 256}}
    for dataset in (house.dataset_id, house.new_dataset(ids_up_to=5)):
        detail, loc = _refused(house, dataset=dataset, model=huge)
        assert "2,000,000,000" in detail
        assert loc == ("model",)
    detail, loc = _refused(house, dataset=house.new_dataset(ids_up_to=2**31 - 1))
    assert "the limit here is 2,000,000,000" in detail


def test_a_sequence_over_the_limit_is_refused_with_the_limit(house: House) -> None:
    detail, loc = _refused(house, sequence={"max_length": 8193})
    assert "8,192" in detail
    assert loc == ("sequence", "max_length")


def test_what_could_never_run_is_refused_at_its_field(house: House) -> None:
    ids = house.new_dataset(ids_up_to=300)
    text = house.dataset_id
    cases: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({"dataset": ids, "tokenizer": {"train": {}}}, ("tokenizer",)),
        ({"dataset": ids, "tokenizer": "bytes"}, ("tokenizer",)),
        ({"dataset": ids, "samples": {"prompts": ["x"]}}, ("samples", "prompts")),
        ({"dataset": ids, "validation": {"dataset": text}}, ("validation", "dataset")),
        ({"dataset": text, "validation": {"dataset": ids}}, ("validation", "dataset")),
    ]
    for fields, loc in cases:
        assert _refused(house, **fields)[1] == loc, fields
    assert _plan(house, dataset=house.new_dataset(ids_up_to=256), tokenizer="bytes")


def _trained(house: House, **fields: Any) -> dict[str, Any]:
    claim = house.running(priority=1000, **fields)
    house.publish(claim, 1)
    return {"checkpoint": {"job": claim.job_id, "epoch": 1}}


def test_a_checkpoint_brings_its_tokenizer_and_its_positions(house: House) -> None:
    model = _trained(house, sequence={"max_length": 64})
    fits: dict[str, Any] = {"model": model, "sequence": {"max_length": 64}}
    assert _plan(house, **fits, samples={"prompts": ["x"]})["parameters"]
    for fields, loc in [
        ({"model": model}, ("sequence", "max_length")),  # 256 by default
        ({"model": model, "sequence": {"max_length": 65}}, ("sequence", "max_length")),
        ({**fits, "tokenizer": "bytes"}, ("tokenizer",)),
        ({**fits, "tokenizer": {"train": {}}}, ("tokenizer",)),
    ]:
        assert _refused(house, **fields)[1] == loc, fields
    # And so does what went on from it, whose own sequences were shorter.
    again = _trained(house, model=model, sequence={"max_length": 32})
    assert _plan(house, model=again, sequence={"max_length": 64})
    assert _refused(house, model=again, sequence={"max_length": 65})[1] == ("sequence", "max_length")


def test_a_checkpoint_of_token_ids_has_no_tokenizer(house: House) -> None:
    ids = house.new_dataset(ids_up_to=9)
    model = _trained(house, dataset=ids)
    assert _plan(house, model=model, dataset=ids)
    assert _refused(house, model=model)[1] == ("dataset",)
    assert _refused(house, model=model, dataset=ids, samples={"prompts": ["x"]})[1] == ("samples", "prompts")
    model = _trained(house, dataset=ids, tokenizer="bytes")
    assert _plan(house, model=model, samples={"prompts": ["x"]})


def test_of_a_model_from_the_hub_nothing_is_known_before_it_is_here(house: House) -> None:
    model = {"hub": "owner/name"}
    plan = _plan(house, model=model, samples={"prompts": ["x"]})
    assert (plan["parameters"], plan["rows"]) == (None, 95)
    assert _plan(house, model=model, dataset=house.new_dataset(ids_up_to=300))["parameters"] is None
    for tokenizer in ("bytes", {"train": {}}):
        detail, loc = _refused(house, model=model, tokenizer=tokenizer)
        assert loc == ("tokenizer",)
        assert "from the hub brings its own" in detail
    # And of what went on from it.
    again = _trained(house, model=model)
    assert _plan(house, model=again, sequence={"max_length": 8192})["parameters"] is None
    assert _refused(house, model=again, tokenizer="bytes")[1] == ("tokenizer",)


def test_an_adapter_alone_is_no_model_to_go_on_from(house: House) -> None:
    model = _trained(house)
    assert _plan(house, model=model | {"lora": {}})["parameters"] is None
    for base in (model, {"hub": "owner/name"}):
        detail, loc = _refused(house, model=_trained(house, model=base | {"lora": {}}))
        assert loc == ("model", "checkpoint")
        assert "lora.merge" in detail
        merged = _trained(house, model=base | {"lora": {"merge": True}})
        assert _plan(house, model=merged)
        assert _plan(house, model=merged | {"lora": {}})
