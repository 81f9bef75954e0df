"""A dry run: what a job would do and take, before it is submitted, and without a trace."""

from typing import Any

import pytest

from core.confined import OverLimit
from core.model_shapes import Gpt2Config
from tests.app.served import ON_SQLITE, Api
from tests.app.test_tokenizers import upload
from tests.worker.training.tiny import texts

pytestmark = ON_SQLITE


def _plan(api: Api, **spec: Any) -> dict[str, Any]:
    answer = api.http.post("/jobs?dry_run=true", json=spec)
    assert answer.status_code == 200, answer.text
    plan: dict[str, Any] = answer.json()
    return plan


@pytest.fixture
def dataset(api: Api) -> str:
    """Rows of text."""
    return api.dataset("\n".join(f'{{"text": "{row}"}}' for row in texts(60)))


def test_the_plan_is_counted_out(api: Api, dataset: str) -> None:
    training = {"epochs": 2, "batch_size": 4, "warmup_steps": 3}
    plan = _plan(api, dataset=dataset, tokenizer="bytes", training=training, sequence={"max_length": 64})
    assert plan["exact"]
    assert (plan["rows"], plan["validation_rows"]) == (57, 3)
    assert plan["tokens_per_epoch"] > 1000
    assert plan["steps"] == 2 * plan["batches_per_epoch"] == 2 * -(-plan["sequences"] // 4)
    assert plan["parameters"] == Gpt2Config(model_type="gpt2").parameters(257, 64)
    assert [rate["at"] for rate in plan["learning_rates"]] == ["first update", "end of warmup", "middle", "last update"]
    parts = [plan["memory"][part] for part in ("weights", "gradients", "optimizer", "activations", "logits")]
    assert plan["memory"]["weights"] == 4 * plan["parameters"]
    assert plan["memory"]["total"] > sum(parts)
    assert plan["disk"]["model"] == 4 * plan["parameters"]
    assert any("Rows held out for validation: 3" in warning for warning in plan["warnings"])


def test_with_an_uploaded_tokenizer_and_with_a_learnt_one(api: Api, dataset: str) -> None:
    by_bytes = _plan(api, dataset=dataset, tokenizer="bytes")
    assert _plan(api, dataset=dataset, tokenizer={"upload": upload(api)["id"]}) == by_bytes
    learnt = _plan(api, dataset=dataset)
    assert learnt["vocab_size"] < 4096
    assert learnt["parameters"] == Gpt2Config(model_type="gpt2").parameters(learnt["vocab_size"], 256)
    assert learnt["tokens_per_epoch"] < by_bytes["tokens_per_epoch"] / 2


def test_what_cannot_be_counted_is_null(api: Api, dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = _plan(api, dataset=dataset, model={"hub": "owner/name"})
    assert not plan["exact"]
    assert (plan["steps"], plan["memory"], plan["disk"], plan["learning_rates"]) == (None, None, None, [])

    def too_long(*_: object, **__: object) -> None:
        raise OverLimit("Counting the tokens took longer than 20 s, and was given up.")

    monkeypatch.setattr("core.confined.call", too_long)
    plan = _plan(api, dataset=dataset)
    assert (plan["exact"], plan["steps"], plan["rows"]) == (False, None, 57)
    assert "longer than 20 s" in plan["warnings"][-1]


def test_what_could_never_be_trained_on_is_a_422(api: Api, dataset: str) -> None:
    sequence = {"min_length": 200, "max_length": 256}
    answer = api.http.post("/jobs?dry_run=true", json={"dataset": dataset, "tokenizer": "bytes", "sequence": sequence})
    assert answer.status_code == 422
    assert "No row can be trained on" in answer.json()["detail"]
