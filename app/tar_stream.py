"""The layout of a `.tar` from names and sizes alone: the same files give the same bytes, and any part can be served."""

import tarfile
from collections.abc import Sequence

from app.ranged_response import Segment

_BLOCK = tarfile.BLOCKSIZE


def tar_segments(folder: str, files: Sequence[tuple[str, Segment]], mtime: int) -> list[Segment]:
    """Return the archive of one folder as headers, contents and padding, one after the other."""
    segments: list[Segment] = [_header(f"{folder}/", tarfile.DIRTYPE, 0o755, 0, mtime)]
    for name, content in files:
        segments.append(_header(f"{folder}/{name}", tarfile.REGTYPE, 0o644, len(content), mtime))
        segments.append(content)
        segments.append(bytes(-len(content) % _BLOCK))
    segments.append(bytes(2 * _BLOCK))
    return segments


def _header(name: str, kind: bytes, mode: int, size: int, mtime: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.mtime = kind, mode, size, mtime
    # GNU and not the old format: a file may be over 8 GiB.
    return entry.tobuf(tarfile.GNU_FORMAT)
