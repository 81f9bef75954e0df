"""The README tells the truth: its tree is the tree, and its lines, as written, do what they say."""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
_NAME_COLUMNS = 24


def tree() -> str:
    """Return every module with the first sentence it says of itself."""
    return "\n".join(line for package in ("core", "app", "worker", "cli") for line in _folder(ROOT / package, 0))


def _folder(folder: Path, depth: int) -> list[str]:
    lines = [_line(f"{folder.name}/", folder / "__init__.py", depth)]
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            lines.append(_line(path.name, path, depth + 1))
    for inner in sorted(path for path in folder.iterdir() if (path / "__init__.py").exists()):
        lines += _folder(inner, depth + 1)
    return lines


def _line(name: str, source: Path, depth: int) -> str:
    docstring = ast.get_docstring(ast.parse(source.read_text()))
    assert docstring, f"{source} says nothing of itself"
    indent = "  " * depth
    return f"{indent}{name:{_NAME_COLUMNS - len(indent)}} {docstring.splitlines()[0]}"


def test_the_tree_is_the_tree() -> None:
    assert tree() in README


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_make_target_that_is_named_exists() -> None:
    for target in set(re.findall(r"(?:`|^    )make (\w+)", README, re.MULTILINE)):
        subprocess.run(["make", "--dry-run", "--silent", target], cwd=ROOT, check=True, capture_output=True)
