"""Batches: each row once, like lengths together, the same ones every time they are asked for."""

import pydoc_data.topics
import re

import numpy as np
import pytest

from core.tokens.batches import epoch_batches, padding_share, windows_after


def lognormal(count: int) -> np.ndarray:
    lengths = np.random.default_rng(0).lognormal(mean=3.5, sigma=1.0, size=count)
    return np.clip(lengths.astype(np.int64), 2, 256)


def real_text() -> np.ndarray:
    paragraphs = re.split(r"\n\s*\n", "\n\n".join(pydoc_data.topics.topics.values()))
    return np.array([min(200, max(2, len(paragraph) // 4)) for paragraph in paragraphs])


@pytest.mark.parametrize("count", [1, 15, 16, 17, 799, 5000])
def test_every_row_is_in_exactly_one_batch(count: int) -> None:
    batches = epoch_batches(lognormal(count), batch_size=16, seed=3, epoch=1)
    assert sorted(np.concatenate(batches)) == list(range(count))
    sizes = sorted(len(batch) for batch in batches)
    assert sizes[1:] == [16] * (len(sizes) - 1), "only one batch may be smaller"
    assert len(batches) == -(-count // 16)


@pytest.mark.parametrize("lengths", [lognormal(5000), real_text()], ids=["lognormal", "real text"])
@pytest.mark.parametrize("batch_size", [8, 16])
def test_padding_is_under_five_percent(lengths: np.ndarray, batch_size: int) -> None:
    batches = epoch_batches(lengths, batch_size=batch_size, seed=0, epoch=1)
    computed = sum((lengths[batch].max() - 1) * len(batch) for batch in batches)
    padding = 1 - (lengths - 1).sum() / computed
    assert padding < 0.05
    assert padding_share(lengths, batches) == pytest.approx(padding)


def test_batches_follow_from_seed_and_epoch_alone() -> None:
    lengths = lognormal(3000)

    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(epoch_batches(lengths, batch_size=16, seed=seed, epoch=epoch)).tolist()

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)
    in_batches = [{frozenset(b) for b in epoch_batches(lengths, batch_size=16, seed=1, epoch=e)} for e in (1, 2)]
    assert len(in_batches[0] & in_batches[1]) < 5, "rows must meet other rows each epoch"


def test_short_and_long_batches_come_in_a_shuffled_order() -> None:
    lengths = lognormal(800)
    longest = [lengths[batch].max() for batch in epoch_batches(lengths, batch_size=16, seed=0, epoch=1)]
    assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.5


@pytest.mark.parametrize(
    ("batches", "accumulation", "sizes"), [(7, 4, [4, 3]), (3, 4, [3]), (8, 4, [4, 4]), (3, 1, [1, 1, 1])]
)
def test_the_last_window_of_an_epoch_is_what_is_left(batches: int, accumulation: int, sizes: list[int]) -> None:
    lengths = lognormal(batches * 2)
    windows = list(windows_after(0, lengths, batch_size=2, accumulation=accumulation, epochs=2, seed=0))
    assert [len(window.batches) for window in windows] == sizes * 2
    assert [window.step for window in windows] == list(range(1, 2 * len(sizes) + 1))
    assert [window.epoch for window in windows] == [1] * len(sizes) + [2] * len(sizes)
    first_batches = np.cumsum([1, *sizes, *sizes])[:-1].tolist()
    assert [window.first_batch for window in windows] == first_batches
    assert [window.ends_epoch for window in windows] == ([False] * (len(sizes) - 1) + [True]) * 2


def test_windows_go_on_after_any_step() -> None:
    settings = {"batch_size": 4, "accumulation": 3, "epochs": 3, "seed": 5}
    everything = list(windows_after(0, lognormal(57), **settings))
    for step in range(len(everything) + 1):
        rest = list(windows_after(step, lognormal(57), **settings))
        assert [w.step for w in rest] == [w.step for w in everything[step:]]
        assert [[b.tolist() for b in w.batches] for w in rest] == [
            [b.tolist() for b in w.batches] for w in everything[step:]
        ]
