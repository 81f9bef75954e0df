"""What schemathesis sends where made-up data leads nowhere: files that can be read, and the ids of what is there."""

import hashlib
import json
import os
from itertools import count
from typing import Any

import schemathesis
from schemathesis import Case, GenerationMode, HookContext, Response

# What is there from the beginning, by the name of the parameter that asks for it; `tokenizer` is a file's text.
_there = json.loads(os.environ["EPOCHD_TEST_THERE"])
_datasets = [_there["dataset_id"]]
_upload = b'{"text": "uploaded in parts"}\n' * 2
_number = count()


@schemathesis.hook
def before_call(_context: HookContext, case: Case, _arguments: dict[str, Any]) -> None:
    """Replace what cannot succeed as it was made up, except where it is made up so as to be refused."""
    wait = (case.query or {}).get("wait")
    if isinstance(wait, int | float) and 1 < wait <= 60:
        case.query["wait"] = 1  # an answer of a job where nothing happens would take so long
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    operation = case.operation.definition.raw["operationId"]
    if case.meta.phase.name == "fuzzing" and not operation.startswith("delete_"):
        case.path_parameters |= {name: _there[name] for name in case.path_parameters.keys() & _there.keys()}
    if case.meta.phase.name == "stateful":
        _make_it_succeed(operation, case)


@schemathesis.hook
def after_call(_context: HookContext, case: Case, response: Response) -> None:
    """Remember the datasets that there are."""
    if response.status_code == 201 and case.operation.definition.raw["operationId"] == "create_dataset":
        _datasets.append(response.json()["id"])


def _make_it_succeed(operation: str, case: Case) -> None:
    if operation == "create_dataset":
        _send_file(case, f'{{"text": "number {next(_number)}"}}\n'.encode() * 2, "d.jsonl")
    elif operation == "create_tokenizer":
        _send_file(case, _there["tokenizer"].encode(), "tokenizer.json")
    elif operation == "create_upload":
        case.body = {"filename": "d.jsonl", "bytes": len(_upload), "sha256": hashlib.sha256(_upload).hexdigest()}
    elif operation == "append_to_upload":
        case.body, case.media_type = _upload, "application/octet-stream"
        case.headers["Upload-Offset"] = "0"
    elif operation == "create_job" and isinstance(case.body, dict):
        linked = case.body.get("dataset")
        case.body = {"dataset": linked if linked in _datasets else _datasets[-1]}
        case.query = {}


def _send_file(case: Case, content: bytes, name: str) -> None:
    case.body, case.media_type, case.query = content, "application/octet-stream", {"filename": name}
    case.headers.pop("Content-Type", None)
