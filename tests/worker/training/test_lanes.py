"""Two lanes make the update that one makes, and make it again to the last bit."""

import threading
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from core.model_shapes import MODEL_TYPES
from core.model_spec import NewModel
from core.tokens.sequences import Sequences
from tests.worker.training.test_architectures import CONFIGS, DROPOUTS
from tests.worker.training.tiny import GPT2, NO_DROPOUT, VOCABULARY, learner, sequences
from worker.training.build import Learner
from worker.training.lanes import Lanes
from worker.training.token_loss import TokenLoss
from worker.training.update import MemoryBudget, Outcome, update

# Of nearly one length, so that every window below is worth two lanes.
DATA = sequences([[*row, 1] for row in np.random.default_rng(0).integers(0, VOCABULARY, (8, 17)).tolist()])
WINDOWS = [[list(range(8))], [[0, 1, 2, 3], [4, 5, 6, 7]], [[i] for i in range(8)]]


@pytest.fixture(autouse=True)
def two_cores() -> None:
    torch.set_num_threads(2)


def apply(
    tiny: Learner,
    window: list[list[int]],
    *,
    data: Sequences = DATA,
    budget: MemoryBudget | None = None,
    **settings: Any,
) -> Outcome:
    defaults: dict[str, Any] = {"learning_rate": 0.1, "max_grad_norm": 1e9, "dropout": (0, 1)}
    batches = [np.array(batch) for batch in window]
    return update(tiny, data, batches, budget=budget or MemoryBudget(), **defaults | settings)


def alone(config: dict[str, Any] | None = None) -> Learner:
    """The same model, which one lane computes with."""
    torch.set_num_threads(1)
    tiny = learner(config)
    torch.set_num_threads(2)
    assert tiny.lanes is None
    return tiny


def in_lanes(config: dict[str, Any] | None = None) -> Learner:
    tiny = learner(config)
    assert tiny.lanes is not None
    return tiny


def descending(tiny: Learner) -> Learner:
    """The same under plain descent, where the change of the weights is the very gradient that was applied."""
    descent = torch.optim.SGD(tiny.model.parameters(), lr=1.0, fused=True)
    return Learner(tiny.model, tiny.token_loss, descent, tiny.device, lanes=tiny.lanes)


def weights(tiny: Learner) -> torch.Tensor:
    return torch.cat([weight.detach().flatten().clone() for weight in tiny.model.parameters()])


def lanes_used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note which lanes are asked for something."""
    seen: list[int] = []
    each = Lanes.each

    def noting(self: Lanes, work: Any) -> Any:
        def noted(number: int, token_loss: TokenLoss) -> Any:
            seen.append(number)
            return work(number, token_loss)

        return each(self, noted)

    monkeypatch.setattr(Lanes, "each", noting)
    return seen


@pytest.mark.parametrize("window", WINDOWS, ids=["1 x 8", "2 x 4", "8 x 1"])
def test_the_numbers_and_the_gradient_are_those_of_one_lane(
    window: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = descending(alone()), descending(in_lanes())
    seen = lanes_used(monkeypatch)
    expected, found = apply(one, window).read(), apply(two, window).read()
    assert sorted(seen) == [0, 1]
    torch.testing.assert_close(weights(two), weights(one), rtol=0, atol=1e-7)
    assert found.losses == pytest.approx(expected.losses, rel=1e-6)
    assert found.correct == expected.correct
    assert found.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_model_trains_in_lanes(config: dict[str, Any]) -> None:
    one, two = descending(alone(config)), descending(in_lanes(config))
    for _ in range(2):  # so that the second lane is seen to have the new weights too
        expected, found = apply(one, WINDOWS[0]).read(), apply(two, WINDOWS[0]).read()
        assert found.losses == pytest.approx(expected.losses, rel=1e-5)
    torch.testing.assert_close(weights(two), weights(one), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", sorted(MODEL_TYPES))
def test_no_lane_draws_from_the_generator_that_all_threads_share(kind: str) -> None:
    known = set(NewModel.model_validate({"config": {"model_type": kind}}).model_dump()["config"]) & set(DROPOUTS)
    dropping = CONFIGS[kind] | dict.fromkeys(known, 0.3)
    assert known
    if kind == "starcoder2":  # which drops by torch's function, and that asks this generator
        assert learner(dropping).lanes is None
        dropping |= {"residual_dropout": 0.0, "embedding_dropout": 0.0}
    tiny = in_lanes(dropping)
    before = torch.get_rng_state()
    numbers = apply(tiny, WINDOWS[0]).read()
    assert torch.equal(torch.get_rng_state(), before)
    assert numbers.losses != apply(in_lanes(CONFIGS[kind] | dict.fromkeys(known, 0.0)), WINDOWS[0]).read().losses


def test_the_lanes_share_the_weights_and_keep_no_gradient() -> None:
    tiny = in_lanes()
    apply(tiny, WINDOWS[0])
    assert tiny.lanes is not None
    first, second = (lane.weights for lane in tiny.lanes._lanes)
    assert all(a is b for a, b in zip(first, tiny.model.parameters(), strict=True))
    for mine, other in zip(first, second, strict=True):
        assert mine is not other
        assert mine.data_ptr() == other.data_ptr()
        assert mine.grad is None
        assert other.grad is None


@pytest.mark.parametrize(("cores", "each"), [(2, [1, 1]), (3, [2, 1]), (5, [3, 2])])
def test_each_lane_has_its_part_of_the_cores_and_the_rest_has_all(cores: int, each: list[int]) -> None:
    torch.set_num_threads(cores)
    tiny = in_lanes()
    assert tiny.lanes is not None
    tiny.lanes.each(lambda *_: None)
    assert torch.get_num_threads() == cores
    torch.set_num_threads(cores)  # says nothing to threads that have begun
    assert tiny.lanes.each(lambda *_: torch.get_num_threads()) == each


@pytest.mark.parametrize(
    "training", [{"compile": True}, {"gradient_checkpointing": True}, {"precision": "fp16"}], ids=str
)
def test_what_is_one_for_all_threads_has_one_lane(training: dict[str, Any]) -> None:
    assert learner(**training).lanes is None


def test_dropout_in_lanes_follows_from_seed_and_step_alone() -> None:
    def after(seed: int, step: int) -> torch.Tensor:
        tiny = in_lanes(GPT2)
        apply(tiny, WINDOWS[1], dropout=(seed, step))
        return weights(tiny)

    first = after(1, 1)
    before = torch.default_generator.get_state()
    assert all(torch.equal(first, after(1, 1)) for _ in range(5))
    assert not torch.equal(first, after(1, 2))
    assert not torch.equal(first, after(2, 1))
    plain = in_lanes(GPT2 | NO_DROPOUT)
    apply(plain, WINDOWS[1])
    assert not torch.equal(first, weights(plain))
    assert torch.equal(before, torch.default_generator.get_state())


def test_each_lane_drops_elements_of_its_own() -> None:
    data = sequences([[1, 2, 3, 4, 5, 6]] * 2)
    # Two batches of one row: a lane for each.
    outcome = apply(in_lanes(GPT2), [[0], [1]], data=data)
    first, second = outcome.read().losses
    assert first != second
    first, second = apply(in_lanes(), [[0], [1]], data=data).read().losses
    assert first == second


@pytest.mark.parametrize("window", WINDOWS, ids=["1 x 8", "2 x 4", "8 x 1"])
def test_what_does_not_fit_beside_the_other_lane_is_done_again_alone(
    window: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = descending(alone()), descending(in_lanes())
    seen, budget, call = lanes_used(monkeypatch), MemoryBudget(), TokenLoss.__call__

    def full(self: TokenLoss, data: Sequences, rows: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError
        return call(self, data, rows)

    apply(one, window)
    monkeypatch.setattr(TokenLoss, "__call__", full)
    outcome = apply(two, window, budget=budget)
    assert len(outcome.splits) == 1
    torch.testing.assert_close(weights(two), weights(one), rtol=0, atol=1e-7)
    seen.clear()
    assert not apply(two, window, budget=budget).splits, "what fits is remembered"
    assert not seen


@pytest.mark.parametrize("full_lane", [0, 1])
def test_where_one_lane_has_no_memory_both_drop_their_gradients(
    full_lane: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = descending(alone()), descending(in_lanes())
    assert two.lanes is not None
    call, full_model = TokenLoss.__call__, two.lanes._lanes[full_lane].token_loss

    def full(self: TokenLoss, data: Sequences, rows: Any) -> Any:
        if threading.current_thread() is not threading.main_thread() and self is full_model:
            raise MemoryError
        return call(self, data, rows)

    apply(one, WINDOWS[1])
    monkeypatch.setattr(TokenLoss, "__call__", full)
    assert apply(two, WINDOWS[1]).splits
    torch.testing.assert_close(weights(two), weights(one), rtol=0, atol=1e-7)
    assert all(weight.grad is None for lane in two.lanes._lanes for weight in lane.weights)


def test_nothing_of_the_lanes_is_alive_when_it_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, call = in_lanes(), TokenLoss.__call__
    assert tiny.lanes is not None
    parameters = [weight for lane in tiny.lanes._lanes for weight in lane.weights]
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def full(self: TokenLoss, data: Sequences, rows: Any) -> Any:
        in_lane = threading.current_thread() is not threading.main_thread()
        if not in_lane:
            alive.append(any(ref() is not None for ref in held) or any(p.grad is not None for p in parameters))
        loss, correct = call(self, data, rows)
        if in_lane:
            held.append(weakref.ref(loss))
            if len(held) > 2:  # each lane's second batch, or the faster one's last
                raise MemoryError
        return loss, correct

    monkeypatch.setattr(TokenLoss, "__call__", full)
    assert len(apply(tiny, WINDOWS[1]).splits) == 1
    assert len(held) >= 3
    assert not alive[0], "the traceback's tensors, or the gradients of the batch before, take memory"


@pytest.mark.parametrize("lane", [0, 1])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_in_one_lane_touches_nothing(
    lane: int, value: float, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, call = in_lanes(), TokenLoss.__call__
    assert tiny.lanes is not None
    apply(tiny, WINDOWS[1])
    before = weights(tiny)
    moments = [tensor.clone() for state in tiny.optimizer.state.values() for tensor in state.values()]
    poisoned = tiny.lanes._lanes[lane].token_loss

    def poison(self: TokenLoss, data: Sequences, rows: Any) -> Any:
        loss, correct = call(self, data, rows)
        if self is poisoned:
            loss = loss + (value if where == "loss" else 0.0)  # which leaves the gradient as it is
            loss.register_hook(lambda grad: grad * (1.0 if where == "loss" else value))
        return loss, correct

    monkeypatch.setattr(TokenLoss, "__call__", poison)
    seen = lanes_used(monkeypatch)
    numbers = apply(tiny, WINDOWS[1], dropout=(0, 2)).read()
    assert sorted(seen) == [0, 1]
    assert not numbers.applied
    assert torch.equal(before, weights(tiny))
    after = [tensor for state in tiny.optimizer.state.values() for tensor in state.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True))
    assert all(weight.grad is None for each in tiny.lanes._lanes for weight in each.weights)

    monkeypatch.undo()
    assert apply(tiny, WINDOWS[1], dropout=(0, 3)).read().applied, "the next window is as if this had not been"


def test_other_errors_in_a_lane_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(TokenLoss, "__call__", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        apply(in_lanes(), WINDOWS[0])
