"""The memory that a plan foresees is what a run then takes."""

from benchmarks.memory_estimate import CASES, measure


def test_a_run_takes_what_its_plan_said() -> None:
    # A small one; `python -m benchmarks.memory_estimate` looks at more.
    [case] = [case for case in CASES if case.name == "gpt2, 4 layers of 768, 4 x 64"]
    found = measure(case)
    assert abs(found.off_by) < 0.25, f"estimated {found.estimated:,}, measured {found.measured:,}"
