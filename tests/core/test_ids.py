"""Ids: never the same, never guessed, and in the order of their creation."""

from time import time_ns

from core.ids import new_id


def test_ids_are_distinct_and_of_one_form() -> None:
    made = [new_id("job") for _ in range(20_000)]
    assert len(set(made)) == len(made)
    assert {len(id_) for id_ in made} == {30}
    assert {len(id_.split("_")) for id_ in made} == {2}
    assert set("".join(id_[4:] for id_ in made)) == set("0123456789abcdefghjkmnpqrstvwxyz")


def test_ids_sort_by_the_millisecond() -> None:
    def next_millisecond() -> str:
        now = time_ns() // 1_000_000
        while time_ns() // 1_000_000 == now:
            pass
        return new_id("job")

    made = [next_millisecond() for _ in range(50)]
    assert made == sorted(made)
