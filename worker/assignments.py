"""From a claimed job to what its trainer is told: local paths of its data and of the model to go on from."""

from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

from core import checkpoints, datasets, jobs, tokenizers
from core.checkpoint_files import FileEntry, verify
from core.dataset_files import DataFile
from core.errors import Corrupt, NotFound
from core.job_spec import JobSpec, UploadedTokenizer
from core.jobs import Claim
from core.model_spec import HubModel, NewModel
from core.models import Checkpoint, Dataset, Job, Tokenizer
from core.settings import Settings
from core.store import Store
from core.unit_of_work import UnitOfWork
from worker import hub
from worker.training.assignment import Assignment, TokenizerFile


def make_assignment(
    job: Job,
    claim: Claim,
    work: UnitOfWork,
    store: Store,
    *,
    settings: Settings,
    output_dir: Path,
    warn: Callable[[str, str], None],
    interrupted: Callable[[], bool],
) -> Assignment:
    """Return what to do, once all of it is on this machine.

    A damaged checkpoint of the job itself is set aside with a warning, and the one before is used. Raises Corrupt where
    a dataset's or a tokenizer's file or the base checkpoint is gone or damaged; for a model from the hub what
    `hub.fetch` raises, which asks `interrupted`.
    """
    spec = JobSpec.model_validate(job.spec)
    resume_from = _newest_sound(claim, work, store, warn)
    base_model = None
    # A checkpoint to resume from holds the model, except where only an adapter is trained beside it.
    if resume_from is None or (not isinstance(spec.model, NewModel) and spec.model.lora):
        if isinstance(spec.model, HubModel):
            base_model, commit = hub.fetch(
                spec.model, folder=settings.hub_dir, max_parameters=settings.max_parameters, interrupted=interrupted
            )
            spec = _pinned(spec, spec.model, commit, claim, work)
        elif job.base_checkpoint:
            base_model = _base_model(job.base_checkpoint, work, store)
    return Assignment(
        spec=spec,
        dataset=_file(job.dataset_id, work, store),
        validation_dataset=_file(job.validation_dataset_id, work, store) if job.validation_dataset_id else None,
        # A checkpoint holds the tokenizer it was trained with.
        tokenizer=_tokenizer(spec, work, store) if resume_from is None else None,
        base_model=base_model,
        resume_from=resume_from,
        output_dir=output_dir,
        cache_dir=settings.cache_dir,
        cache_max_bytes=settings.cache_max_bytes,
    )


def _newest_sound(claim: Claim, work: UnitOfWork, store: Store, warn: Callable[[str, str], None]) -> Path | None:
    with work.reading() as session:
        candidates = checkpoints.resumable(session, claim.job_id)
    for checkpoint, before in zip_longest(candidates, candidates[1:]):
        try:
            folder = store.fetch(checkpoints.store_key(checkpoint))
            verify(folder / "model", _entries(checkpoint.files))
            verify(folder / "state", _entries(checkpoint.state_files))
            return folder
        except Corrupt as error:
            _set_aside(checkpoint, claim, work, store)
            instead = f"goes on from that of step {before.step}" if before else "begins anew"
            message = f"The checkpoint of step {checkpoint.step} was set aside: {error.detail}. The run {instead}."
            warn("checkpoint_damaged", message)
    return None


def _set_aside(checkpoint: Checkpoint, claim: Claim, work: UnitOfWork, store: Store) -> None:
    with work.begin() as session:
        jobs.record(session, claim, [])
        checkpoints.remove(session, checkpoint)
    store.set_aside(checkpoints.store_key(checkpoint))


def _pinned(spec: JobSpec, model: HubModel, commit: str, claim: Claim, work: UnitOfWork) -> JobSpec:
    """Write the model's commit into the job's spec: whoever takes the job up again gets the same one."""
    if commit == model.revision:
        return spec
    pinned = spec.model_copy(update={"model": model.model_copy(update={"revision": commit})})
    with work.begin() as session:
        jobs.record(session, claim, [], spec=pinned.document())
    return pinned


def _base_model(key: str, work: UnitOfWork, store: Store) -> Path:
    try:
        with work.reading() as session:
            checkpoint = checkpoints.at(session, key)
    except NotFound as error:
        raise Corrupt(error.detail) from error
    folder = store.fetch(key) / "model"
    verify(folder, _entries(checkpoint.files))
    return folder


def _file(dataset_id: str, work: UnitOfWork, store: Store) -> DataFile:
    with work.reading() as session:
        dataset = session.get_one(Dataset, dataset_id)
    return datasets.data_file(dataset, store)


def _tokenizer(spec: JobSpec, work: UnitOfWork, store: Store) -> TokenizerFile | None:
    if not isinstance(spec.tokenizer, UploadedTokenizer):
        return None
    with work.reading() as session:
        uploaded = session.get_one(Tokenizer, spec.tokenizer.upload)
    return TokenizerFile(path=tokenizers.file_of(uploaded, store), end_of_text=uploaded.end_of_text)


def _entries(files: list[dict[str, object]]) -> list[FileEntry]:
    return [FileEntry(**file) for file in files]  # type: ignore[typeddict-item]
