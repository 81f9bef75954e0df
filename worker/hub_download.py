"""`python -m worker.hub_download`: fetches one model from the hub. A process of its own, so that it can be stopped.

An order comes in on standard input, one outcome goes out on standard output. What lies at `folder/owner--name/commit`
is complete: safetensors, JSON and a tokenizer, checked, with the hash of each file beside them.
"""

import errno
import fcntl
import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, RepoFile, snapshot_download
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SafetensorsParsingError,
)
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

from core.checkpoint_files import MANIFEST, list_files, manifest_text, write_manifest
from core.disk import sync
from worker.hub import Order, Outcome
from worker.training import orphan
from worker.training.model_files import Refusal, refuse_config

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PLAIN_NAME = re.compile(r"\w[\w.-]*", re.ASCII)
_ONE_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"
# What a tokenizer may consist of, besides JSON. No code, no pickle.
_TOKENIZER = frozenset({"merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "chat_template.jinja"})
_SMALL_FILES_BYTES = 2**30
# No dtype takes more for one weight; beyond that, and a header, a file holds something else.
_BYTES_PER_PARAMETER, _HEADER_BYTES = 8, 2**24


# The first that fits: a gated model is one that is not found, too.
_REASONS: list[tuple[type[Exception], str, str]] = [
    (
        GatedRepoError,
        "{hub} is gated: its owner decides who may have it.",
        "Ask for access on its page; whoever runs the worker sets HF_TOKEN of an account that has it.",
    ),
    (
        RepositoryNotFoundError,
        "The hub shows no model {hub}.",
        "Correct model.hub; for a private model, whoever runs the worker sets HF_TOKEN of an account that sees it.",
    ),
    (DisabledRepoError, "The hub has disabled {hub}.", "Name another model."),
    (RevisionNotFoundError, "{hub} has no revision {revision}.", "Correct model.revision."),
    (OfflineModeIsEnabled, "The worker is set to work offline.", "Unset HF_HUB_OFFLINE where the worker runs."),
]


class _Refused(Exception):
    """The model cannot be trained here, whenever one asks."""


def download(order: Order) -> Outcome:
    """Fetch a model, where it is not there yet. Whatever is known to go wrong is an outcome too."""
    wait = wait_exponential(max=16)
    patience = stop_after_delay(order.patience_seconds)
    try:
        for attempt in Retrying(retry=retry_if_exception(_may_pass), stop=patience, wait=wait, reraise=True):
            with attempt:
                return _download(order)
        raise AssertionError("Retrying returns or raises")
    except _Refused as error:
        return Outcome(message=error.args[0], hint=error.args[1])
    except (httpx2.HTTPError, OSError) as error:
        return _explained(error, order)


def _download(order: Order) -> Outcome:
    api = HfApi()
    commit = (
        order.revision if _COMMIT.fullmatch(order.revision) else api.repo_info(order.hub, revision=order.revision).sha
    )
    if commit is None or not _COMMIT.fullmatch(commit):
        raise _Refused(
            f"The hub names no commit of {order.hub}.", "See that HF_ENDPOINT, if the worker has it, is a hub."
        )
    place = order.folder / order.hub.replace("/", "--")
    place.mkdir(parents=True, exist_ok=True)
    with _alone(place / f"{commit}.lock"):
        if not _is_whole(place / commit):
            shutil.rmtree(place / commit, ignore_errors=True)
            # Kept by an attempt that was cut off, so that the next one goes on where it ended.
            unfinished = place / f".{commit}.unfinished"
            try:
                _fetch(api, order, commit, unfinished)
            except _Refused:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
            unfinished.rename(place / commit)
            sync(place)
    return Outcome(folder=place / commit, commit=commit)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process fetches the same: the lock goes with the process that holds it."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _is_whole(folder: Path) -> bool:
    if not (folder / MANIFEST).is_file():
        return False
    files = [file for file in list_files(folder) if file["name"] != MANIFEST]
    return manifest_text(files) == (folder / MANIFEST).read_text()


def _fetch(api: HfApi, order: Order, commit: str, target: Path) -> None:
    tree = api.list_repo_tree(order.hub, revision=commit)
    files = {file.path: file for file in tree if isinstance(file, RepoFile) and _PLAIN_NAME.fullmatch(file.path)}
    small = [name for name in files if name.endswith(".json") or name in _TOKENIZER]
    if sum(files[name].size for name in small) > _SMALL_FILES_BYTES:
        raise _Refused(f"The files of {order.hub} beside its weights are too large.", "Name another model.")
    snapshot_download(order.hub, revision=commit, local_dir=target, allow_patterns=small)
    _refuse(refuse_config(target))
    weights = _weights(order, files, target)
    _check_size(api, order, commit, [files[name] for name in weights])
    snapshot_download(order.hub, revision=commit, local_dir=target, allow_patterns=weights)
    shutil.rmtree(target / ".cache")
    _check_and_seal(order, files, target)


def _refuse(refusal: Refusal | None) -> None:
    if refusal:
        raise _Refused(*refusal)


def _weights(order: Order, files: dict[str, RepoFile], folder: Path) -> list[str]:
    """Return the names of the files that hold the weights: only those that transformers would read."""
    if _ONE_FILE in files:
        return [_ONE_FILE]
    names: list[str] = []
    if _INDEX in files:
        try:
            names = sorted(set(json.loads((folder / _INDEX).read_bytes())["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            names = []
    if not names or any(name not in files or not name.endswith(".safetensors") for name in names):
        raise _Refused(
            f"{order.hub} has no weights in safetensors there: a pickle could run code, and is never loaded.",
            "Name a revision or a copy of it whose weights are safetensors.",
        )
    return names


def _check_size(api: HfApi, order: Order, commit: str, weights: list[RepoFile]) -> None:
    """Refuse a model over the limit by the headers of its files, before their bulk is fetched."""
    count = 0
    for file in weights:
        try:
            header = api.parse_safetensors_file_metadata(order.hub, file.path, revision=commit)
        except SafetensorsParsingError as error:
            raise _Refused(
                f"{file.path} of {order.hub} is damaged.", "Name another revision, or another model."
            ) from error
        count += sum(header.parameter_count.values())
    if count > order.max_parameters:
        raise _Refused(
            f"{order.hub} has {count:,} parameters; the limit here is {order.max_parameters:,}.",
            "Name a smaller model, or ask who runs this server to raise EPOCHD_MAX_PARAMETERS.",
        )
    if sum(file.size for file in weights) > count * _BYTES_PER_PARAMETER + len(weights) * _HEADER_BYTES:
        raise _Refused(f"The files of {order.hub} are larger than their weights.", "Name another model.")


def _check_and_seal(order: Order, files: dict[str, RepoFile], target: Path) -> None:
    """Compare what came with the hub's own hashes, bring it to the disk, and leave a manifest."""
    entries = list_files(target)
    for entry in entries:
        lfs = files[entry["name"]].lfs
        if lfs and lfs.sha256 != entry["sha256"]:
            (target / entry["name"]).unlink()
            raise OSError(f"{entry['name']} of {order.hub} came damaged")
        sync(target / entry["name"])
    write_manifest(target, entries)


def _status(error: BaseException) -> int:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else 0


def _may_pass(error: BaseException) -> bool:
    """Tell an outage of the hub, or of the way there, from an answer that would come again."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:
        return _may_pass(error.__cause__)
    if isinstance(error, HfHubHTTPError):
        return _status(error) in (408, 429) or _status(error) >= 500
    if isinstance(error, OfflineModeIsEnabled) or _is_disk_full(error):
        return False
    return isinstance(error, httpx2.HTTPError | OSError)


def _is_disk_full(error: BaseException) -> bool:
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)


def _explained(error: BaseException, order: Order) -> Outcome:
    """Say what an error of the library means to whoever named the model."""
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:
        return _explained(error.__cause__, order)
    if _is_disk_full(error):
        return Outcome(disk_full=True)
    for kind, message, hint in _REASONS:
        if isinstance(error, kind):
            return Outcome(message=message.format(hub=order.hub, revision=order.revision), hint=hint)
    reason = next(iter(str(error).strip().splitlines()), "")[:300]
    return Outcome(
        message=f"{order.hub} could not be fetched from the hub: {type(error).__name__}: {reason}",
        hint="See that the worker reaches the hub (HF_ENDPOINT, a proxy, its network), and submit the job again.",
        may_pass=_may_pass(error),
    )


if __name__ == "__main__":
    orphan.die_with_parent()
    sys.stdout.write(download(Order.model_validate_json(sys.stdin.read())).model_dump_json())
