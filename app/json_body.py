"""Reading a JSON body strictly, and saying of everything wrong with it where it is."""

import hashlib
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends
from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json
from starlette.requests import Request

from app.errors import NotJson
from core.errors import Fault, InvalidInput
from core.job_spec import JobSpec
from core.uploads import Announcement

_Loc = tuple[str | int, ...]
# What a value of another shape than a union's branch is answered with, at the branch itself or one step below it.
_MISFIT_BELOW = frozenset({"missing", "extra_forbidden"})


@dataclass(frozen=True)
class SpecBody:
    """A job spec, and the hash of the very bytes it came in."""

    spec: JobSpec
    sha256: str


async def _json_bytes(request: Request) -> bytes:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not re.fullmatch(r"application/(json|[\w.+-]+\+json)", media_type):
        raise NotJson("The body must be JSON: send it with `Content-Type: application/json` (curl: --json).")
    return await request.body()


def _job_spec(body: Annotated[bytes, Depends(_json_bytes)]) -> SpecBody:
    """Read a job spec. Raises InvalidInput with the place of everything that is wrong."""
    try:
        spec = JobSpec.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(json_faults(error, body)) from error
    if repeated := _repeated_keys(json.loads(body, object_pairs_hook=_Pairs), ()):
        raise _invalid(repeated)
    return SpecBody(spec, hashlib.sha256(body).hexdigest())


def _announcement(body: Annotated[bytes, Depends(_json_bytes)]) -> Announcement:
    """Read what is announced of an upload. Raises InvalidInput with the place of everything that is wrong."""
    try:
        return Announcement.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(json_faults(error, body), what="upload") from error


JobSpecBody = Annotated[SpecBody, Depends(_job_spec)]
AnnouncementBody = Annotated[Announcement, Depends(_announcement)]


def json_faults(error: ValidationError, body: bytes) -> list[Fault]:
    """Return what is wrong with a body, each fault at its JSON path.

    pydantic names the branches of a union in its paths and reports the faults of every branch; kept are those of the
    branch that the value resembles most.
    """
    details = error.errors(include_url=False, include_context=False, include_input=False)
    if details[0]["type"] == "json_invalid":
        return [Fault((), details[0]["msg"])]
    document = from_json(body)
    unions: dict[_Loc, dict[str | int, list[tuple[_Loc, ErrorDetails]]]] = defaultdict(lambda: defaultdict(list))
    faults: list[Fault] = []
    for detail in details:
        path, branch_at = _json_path(document, detail)
        if branch_at is None:
            faults.append(_fault(path, detail))
        else:
            unions[path[:branch_at]][detail["loc"][branch_at]].append((path, detail))
    for place, branches in unions.items():
        misfits = {branch: _misfits(found, len(place)) for branch, found in branches.items()}
        fewest = min(misfits.values())
        for branch, found in branches.items():
            if misfits[branch] == fewest:
                faults += [_fault(path, detail) for path, detail in found]
    return list(dict.fromkeys(faults))


def _json_path(document: Any, detail: ErrorDetails) -> tuple[_Loc, int | None]:
    """Return an error's place without the names that are no keys of the document, and where the first of them was."""
    path: list[str | int] = []
    branch_at, value = None, document
    for place, part in enumerate(detail["loc"]):
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        if inside:
            path.append(part)
            value = value[part]
        elif detail["type"] == "missing" and place == len(detail["loc"]) - 1:
            path.append(part)
        elif branch_at is None:
            branch_at = len(path)
    return tuple(path), branch_at


def _misfits(found: list[tuple[_Loc, ErrorDetails]], depth: int) -> int:
    return sum(
        len(path) == depth or (len(path) == depth + 1 and detail["type"] in _MISFIT_BELOW) for path, detail in found
    )


def _fault(path: _Loc, detail: ErrorDetails) -> Fault:
    return Fault(path, detail["msg"].removeprefix("Value error, "))


def _invalid(faults: list[Fault], *, what: str = "job") -> InvalidInput:
    where = ", ".join(".".join(map(str, fault.loc)) or "the body" for fault in faults[:3])
    return InvalidInput(f"The {what} cannot be used: correct {where}.", faults)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its repeated keys still there."""


def _repeated_keys(value: Any, loc: _Loc) -> list[Fault]:
    faults: list[Fault] = []
    if isinstance(value, _Pairs):
        seen = set()
        for key, inner in value:
            if key in seen:
                faults.append(Fault((*loc, key), "is given twice"))
            seen.add(key)
            faults += _repeated_keys(inner, (*loc, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            faults += _repeated_keys(inner, (*loc, index))
    return faults
