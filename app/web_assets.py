"""The dashboard's files: what is in `app/web`, and the plotly.min.js that comes with the installed plotly."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import distribution
from pathlib import Path

_FOLDER = Path(__file__).parent / "web"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PLOTLY = distribution("plotly")
PLOTLY_NAME = f"plotly-{_PLOTLY.version}.min.js"
_PLOTLY_PLACE = "{{plotly}}"


@dataclass(frozen=True)
class Asset:
    """One file as it is served. `immutable`: its name will never mean other bytes."""

    content: bytes
    media_type: str
    immutable: bool

    @cached_property
    def etag(self) -> str:
        """The hash of the content."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    @cached_property
    def zipped(self) -> bytes:
        """The content as gzip."""
        return gzip.compress(self.content, 6, mtime=0)


@cache
def assets() -> dict[str, Asset]:
    """Return every file by its name: no other name reaches the disk."""
    found = {
        path.name: Asset(_filled_in(path), _TYPES[path.suffix], immutable=False)
        for path in sorted(_FOLDER.iterdir())
        if path.suffix in _TYPES
    }
    script = Path(str(_PLOTLY.locate_file("plotly/package_data/plotly.min.js")))
    return found | {PLOTLY_NAME: Asset(script.read_bytes(), _TYPES[".js"], immutable=True)}


def _filled_in(path: Path) -> bytes:
    content = path.read_bytes()
    return content.replace(_PLOTLY_PLACE.encode(), PLOTLY_NAME.encode()) if path.suffix == ".html" else content
