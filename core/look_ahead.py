"""What is asked about data before it is trained on, previews and plans: every reference resolved to a local path."""

from sqlmodel import Session

from core import checkpoints, datasets, job_queries, tokenizers
from core.dataset_files import holds_ids
from core.errors import InvalidInput, NotFound
from core.job_spec import JobSpec, Sequence, TokenizerTraining, TrainedTokenizer, UploadedTokenizer, ValidationDataset
from core.model_spec import EarlierModel, HubModel
from core.models import Dataset, Job, Tokenizer
from core.ownership import Seer
from core.preview import PreviewRequest
from core.run_estimate import CountRequest, Question
from core.store import Store
from core.submission import Prepared
from core.tokenizer_source import TokenizerSource

_AT = ("query", "tokenizer")


def preview_request(
    session: Session,
    seer: Seer,
    store: Store,
    dataset_id: str,
    *,
    rows: int,
    tokenizer: str | None,
    vocab_size: int,
    sequence: Sequence,
) -> PreviewRequest:
    """Return what a preview is made from. `tokenizer` is `bytes`, `train`, or the id of an uploaded one or of a job.

    Raises NotFound where there is no such dataset, InvalidInput where there is no such tokenizer.
    """
    dataset = datasets.get(session, seer, dataset_id)
    if tokenizer is None and holds_ids(dataset.columns):
        source = None
    elif tokenizer in (None, "train"):
        if holds_ids(dataset.columns):
            raise InvalidInput.at(_AT, "The dataset holds token ids: there is no text to train a tokenizer on.")
        source = TokenizerSource(learn=TokenizerTraining(vocab_size=vocab_size))
    else:
        source = _named(session, seer, store, tokenizer)
    file = datasets.data_file(dataset, store)
    return PreviewRequest(file=file, rows=rows, tokenizer=source, sequence=sequence)


def question(session: Session, owner_id: str, store: Store, prepared: Prepared) -> Question:
    """Return what is to be counted for a job's plan. Of a model that is not here yet nothing can be."""
    spec, count = prepared.spec, None
    if not isinstance(spec.model, HubModel):
        dataset = datasets.get(session, owner_id, spec.dataset)
        other = spec.validation.dataset if isinstance(spec.validation, ValidationDataset) else None
        validation = datasets.get(session, owner_id, other) if other else None
        count = CountRequest(
            spec=spec,
            dataset=datasets.data_file(dataset, store),
            validation=datasets.data_file(validation, store) if validation else None,
            tokenizer=_of_spec(session, store, spec, dataset, prepared.base_checkpoint),
            vocab_size=_of_base(session, spec.model) if isinstance(spec.model, EarlierModel) else None,
        )
    return Question(spec=spec, plan=prepared.plan, count=count, shape=prepared.shape)


def _named(session: Session, seer: Seer, store: Store, name: str | None) -> TokenizerSource:
    if name == "bytes":
        return TokenizerSource()
    kind = (name or "").partition("_")[0]
    try:
        if kind == "tok":
            uploaded = tokenizers.get(session, seer, name or "")
            return TokenizerSource(file=tokenizers.file_of(uploaded, store), end_of_text=uploaded.end_of_text)
        if kind == "job":
            newest = checkpoints.find(session, job_queries.get(session, seer, name or "").id, "latest")
            return TokenizerSource(folder=store.fetch(checkpoints.store_key(newest)) / "model")
    except NotFound as error:
        raise InvalidInput.at(_AT, error.detail) from error
    raise InvalidInput.at(_AT, "A tokenizer is `bytes`, `train`, or the id of an uploaded one (tok_…) or of a job.")


def _of_spec(
    session: Session, store: Store, spec: JobSpec, dataset: Dataset, base_checkpoint: str | None
) -> TokenizerSource | None:
    if base_checkpoint is not None:
        if holds_ids(dataset.columns):
            return None
        return TokenizerSource(folder=store.fetch(base_checkpoint) / "model")
    if isinstance(spec.tokenizer, UploadedTokenizer):
        uploaded = session.get_one(Tokenizer, spec.tokenizer.upload)
        return TokenizerSource(file=tokenizers.file_of(uploaded, store), end_of_text=uploaded.end_of_text)
    if spec.tokenizer == "bytes":
        return TokenizerSource()
    if holds_ids(dataset.columns):
        return None
    asked = spec.tokenizer if isinstance(spec.tokenizer, TrainedTokenizer) else TrainedTokenizer()
    return TokenizerSource(learn=asked.train)


def _of_base(session: Session, model: EarlierModel) -> int | None:
    """Return the vocabulary's size of the model that a job goes on from, as its trainer counted it."""
    job = session.get(Job, model.checkpoint.job)
    size: int | None = job.plan.get("vocab_size") if job else None
    return size
