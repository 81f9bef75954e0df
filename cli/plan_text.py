"""A job's plan in words."""

from cli.client import Json
from cli.screen import size


def lines(plan: Json) -> list[tuple[str, str]]:
    """Return the plan as headings and what is under each. What is not known is said to be so."""
    return [
        ("plan", _kind(plan)),
        ("model", f"{_count(plan['parameters'])} parameters, a vocabulary of {_count(plan['vocab_size'])} tokens"),
        ("rows", _rows(plan)),
        ("windows", _windows(plan)),
        ("tokens", _tokens(plan)),
        ("updates", f"{_count(plan['steps'])}, of {_count(plan['batches_per_epoch'])} batches in an epoch"),
        ("learning rate", _rates(plan)),
        ("memory", _memory(plan)),
        ("checkpoints", _disk(plan)),
    ]


def _kind(plan: Json) -> str:
    if plan["exact"]:
        return "exact: every token was counted"
    if plan.get("sample_rows"):
        return f"an estimate, from {plan['sample_rows']:,} of the rows; the trainer counts them all"
    return "nothing was counted yet: the trainer counts before its first update"


def _rows(plan: Json) -> str:
    parts = [f"{plan['rows']:,} to train on", f"{plan['validation_rows']:,} to validate on"]
    if plan["skipped_rows"]:
        parts.append(f"{plan['skipped_rows']:,} left out because they are empty")
    return ", ".join(parts)


def _windows(plan: Json) -> str:
    parts = [f"{_count(plan.get('sequences'))} in an epoch"]
    if plan.get("dropped_sequences"):
        parts.append(f"{plan['dropped_sequences']:,} left out because they are short")
    if plan.get("silent_sequences"):
        parts.append(f"{plan['silent_sequences']:,} left out because nothing in them carries loss")
    return ", ".join(parts)


def _tokens(plan: Json) -> str:
    padding = plan.get("padding")
    known = "" if padding is None else f"; {padding:.1%} of what is computed is padding"
    return f"{_count(plan['tokens_per_epoch'])} that carry loss in an epoch{known}"


def _rates(plan: Json) -> str:
    rates = plan.get("learning_rates") or []
    return ", ".join(f"{rate['learning_rate']:.2e} ({rate['at']}, {rate['step']:,})" for rate in rates) or "unknown"


def _memory(plan: Json) -> str:
    memory = plan.get("memory")
    if memory is None:
        return "unknown"
    parts = ("weights", "gradients", "optimizer", "activations", "logits")
    what = ", ".join(f"{part} {size(memory[part])}" for part in parts)
    return f"about {size(memory['total'])} on the {memory['device']}, beside the libraries ({what})"


def _disk(plan: Json) -> str:
    disk = plan.get("disk")
    if disk is None:
        return "unknown"
    return (
        f"{size(disk['model'])} each, and {size(disk['state'])} for a resume; "
        f"at most {disk['checkpoints']} are kept, and all take {size(disk['total'])} at most"
    )


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"
