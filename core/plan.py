"""What can be said of a job before it starts: its size, its rows, and what will not work.

Counts that need the tokenizer, or a model that is not here yet, are null: `core/run_estimate.py` fills them in for a
dry run, and the trainer counts exactly before its first step, when the job's plan is replaced by its own.
"""

from dataclasses import dataclass

from core.dataset_files import holds_ids
from core.errors import Fault, InvalidInput
from core.job_spec import JobSpec, TrainedTokenizer, ValidationFraction
from core.model_shapes import AnyShape
from core.model_spec import HubModel, NewModel
from core.models import Dataset, Tokenizer
from core.run_plan import RunPlan
from core.settings import Settings

BYTES_VOCABULARY = 257  # 256 bytes and the end of text


@dataclass(frozen=True)
class Base:
    """What a job takes over with the checkpoint that it goes on from; None is not known yet."""

    parameters: int | None
    positions: int | None
    has_tokenizer: bool
    shape: AnyShape | None


def first_plan(
    spec: JobSpec,
    dataset: Dataset,
    validation: Dataset | None,
    base: Base | None,
    limits: Settings,
    *,
    uploaded: Tokenizer | None,
) -> RunPlan:
    """Return the plan as far as it is known. Raises InvalidInput where the job could never run, or is over a limit."""
    _check_rows_and_tokenizer(spec, dataset, validation, uploaded)
    if base:
        _check_base(spec, dataset, base)
    held_out = spec.validation.held_out(dataset.rows) if isinstance(spec.validation, ValidationFraction) else 0
    vocab_size = _vocab_size(spec, dataset, validation, uploaded)
    count = _parameters(spec, vocab_size, base)
    if count is not None and count > limits.max_parameters:
        raise InvalidInput(
            f"The model would have {count:,} parameters; the limit here is {limits.max_parameters:,} "
            "(EPOCHD_MAX_PARAMETERS): make it smaller.",
            [Fault(("model",), f"{count:,} parameters, over the limit of {limits.max_parameters:,}")],
        )
    return RunPlan(
        exact=False,
        # Those of an adapter come on top, and follow from layers that are only known with the model.
        parameters=count if isinstance(spec.model, NewModel) or spec.model.lora is None else None,
        vocab_size=vocab_size,
        rows=dataset.rows - held_out,
        validation_rows=validation.rows if validation else held_out,
        skipped_rows=dataset.report.get("skipped_rows", 0),
        warnings=_warnings(spec, dataset),
    )


def _vocab_size(spec: JobSpec, dataset: Dataset, validation: Dataset | None, uploaded: Tokenizer | None) -> int | None:
    if not isinstance(spec.model, NewModel):
        return None
    if spec.tokenizer == "bytes":
        return BYTES_VOCABULARY
    if uploaded:
        return uploaded.vocab_size
    if _holds_ids(dataset):
        return 1 + max(_largest_id(dataset), _largest_id(validation) if validation else 0)
    tokenizer = spec.tokenizer if isinstance(spec.tokenizer, TrainedTokenizer) else TrainedTokenizer()
    return tokenizer.train.vocab_size


def _parameters(spec: JobSpec, vocab_size: int | None, base: Base | None) -> int | None:
    if not isinstance(spec.model, NewModel) or vocab_size is None:
        return base.parameters if base else None
    return spec.model.config.parameters(vocab_size, spec.sequence.max_length)


def _check_rows_and_tokenizer(
    spec: JobSpec, dataset: Dataset, validation: Dataset | None, uploaded: Tokenizer | None
) -> None:
    if _holds_ids(dataset):
        if isinstance(spec.tokenizer, TrainedTokenizer):
            raise InvalidInput(
                "The dataset holds token ids: there is no text to train a tokenizer on. Leave `tokenizer` out.",
                [Fault(("tokenizer",), "cannot be trained on token ids")],
            )
        if spec.samples.prompts and spec.tokenizer is None and isinstance(spec.model, NewModel):
            raise InvalidInput(
                "The dataset holds token ids and no tokenizer: prompts cannot be read. Leave `samples` out.",
                [Fault(("samples", "prompts"), "need a tokenizer")],
            )
        known = BYTES_VOCABULARY if spec.tokenizer == "bytes" else uploaded.vocab_size if uploaded else None
        if known is not None and _largest_id(dataset) >= known:
            raise InvalidInput(
                f"The dataset holds token id {_largest_id(dataset)}, and the tokenizer has ids up to {known - 1}.",
                [Fault(("tokenizer",), "does not have the dataset's token ids")],
            )
    if not isinstance(spec.model, NewModel) and spec.tokenizer is not None:
        source = "model from the hub" if isinstance(spec.model, HubModel) else "checkpoint"
        raise InvalidInput(
            f"A {source} brings its own tokenizer: leave `tokenizer` out.",
            [Fault(("tokenizer",), f"comes with the {source}")],
        )
    if validation is not None and _holds_ids(validation) != _holds_ids(dataset):
        raise InvalidInput(
            "The dataset and the validation dataset must hold the same kind of rows: both text, or both token ids.",
            [Fault(("validation", "dataset"), "another kind of rows")],
        )


def _check_base(spec: JobSpec, dataset: Dataset, base: Base) -> None:
    if base.positions is not None and spec.sequence.max_length > base.positions:
        raise InvalidInput(
            f"The checkpoint's model has {base.positions} positions: set sequence.max_length to that or less.",
            [Fault(("sequence", "max_length"), f"over the {base.positions} positions of the checkpoint's model")],
        )
    if base.has_tokenizer:
        return
    if not _holds_ids(dataset):
        raise InvalidInput(
            "The checkpoint has no tokenizer, since it comes from token ids: give a dataset of token ids.",
            [Fault(("dataset",), "holds text, and the checkpoint has no tokenizer")],
        )
    if spec.samples.prompts:
        raise InvalidInput(
            "The checkpoint has no tokenizer, since it comes from token ids: leave `samples` out.",
            [Fault(("samples", "prompts"), "need a tokenizer")],
        )


def _holds_ids(dataset: Dataset) -> bool:
    return holds_ids(dataset.columns)


def _largest_id(dataset: Dataset) -> int:
    largest: int = dataset.report.get("largest_id") or 0
    return largest


def _warnings(spec: JobSpec, dataset: Dataset) -> list[str]:
    warnings = []
    if isinstance(spec.validation, ValidationFraction) and dataset.rows < 2:
        warnings.append("the dataset has one row: nothing is held out for validation")
    if spec.training.warmup_ratio == 1:
        warnings.append("warmup_ratio is 1: the learning rate rises to the very end")
    return warnings
