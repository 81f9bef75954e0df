"""A job's spec from a file: JSON as it is, YAML as its version 1.2 reads it."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from core.errors import InvalidInput


class _Yaml12(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, where `3e-4` is text, `no` is false and `2026-01-01` is a date."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as in the base class


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


# Leading zeros make an octal number in YAML 1.1 alone.
_Yaml12.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))


def read_spec(name: str) -> str:
    """Return the spec as the JSON text to send. `-` is standard input. Raises InvalidInput where it is neither."""
    text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    if name.endswith(".json") or _is_json(text):
        return text  # the server reads it with more care than this side could: duplicate names, NaN
    try:
        spec: Any = yaml.load(text, Loader=_Yaml12)
        if not isinstance(spec, dict):
            raise InvalidInput(f"{name} holds no spec: it should be a mapping such as `dataset: ds_…`.")
        return json.dumps(spec, allow_nan=False)
    except yaml.MarkedYAMLError as error:
        place = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidInput(f"{name} is not YAML{place}: {error.problem}.") from error
    except RecursionError as error:
        raise InvalidInput(f"{name} is nested too deeply for a spec.") from error
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise InvalidInput(f"{name} cannot be read as a spec: {error}.") from error


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    except RecursionError:
        return True  # too deep for this parser: the server says so with more grace
    return True
