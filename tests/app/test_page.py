"""The dashboard's files: open to everyone, and nothing in them that a strict policy would have to allow."""

import gzip
import re
from pathlib import Path

import httpx

from app import web_assets
from tests.app.served import ON_SQLITE, Api

WEB = Path(web_assets.__file__).parent / "web"
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def stranger(api: Api) -> httpx.Client:
    """Return a client without a key."""
    return httpx.Client(base_url=api.http.base_url, trust_env=False)


@ON_SQLITE
def test_every_file_is_served_without_a_key_and_under_a_strict_policy(api: Api) -> None:
    page = stranger(api).get("/")
    assert page.text.startswith("<!doctype html>")
    paths = ["/", *re.findall(r'"(/assets/[^"]+)"', page.text), *(f"/assets/{path.name}" for path in WEB.iterdir())]
    assert len(paths) > 10
    for path in paths:
        answer = stranger(api).get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"].startswith(TYPES[path.rpartition(".")[2] if "." in path else "html"])
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        head = stranger(api).head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == answer.headers["content-length"]


@ON_SQLITE
def test_plotly_is_that_of_the_installed_package_and_is_kept_for_a_year(api: Api) -> None:
    (path,) = re.findall(r'"(/assets/plotly-[^"]+)"', stranger(api).get("/").text)
    answer = stranger(api).get(path, headers={"Accept-Encoding": "identity"})
    assert "max-age=31536000" in answer.headers["cache-control"]
    assert answer.text.startswith("/**\n* plotly.js v")
    with stranger(api).stream("GET", path, headers={"Accept-Encoding": "gzip"}) as zipped:
        assert gzip.decompress(b"".join(zipped.iter_raw())) == answer.content


@ON_SQLITE
def test_a_file_that_has_not_changed_is_not_sent_again(api: Api) -> None:
    for encoding in ("gzip", "identity"):
        first = stranger(api).get("/", headers={"Accept-Encoding": encoding})
        assert first.headers["cache-control"] == "no-cache"
        again = stranger(api).get("/", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@ON_SQLITE
def test_no_other_file_can_be_had(api: Api) -> None:
    for name in ("main.py", "..%2fmain.py", "%2e%2e%2fmain.py", "web_assets.py", "index.html%00.js", "plotly.min.js"):
        answer = stranger(api).get(f"/assets/{name}")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), name


def test_nothing_is_inserted_as_markup_and_nothing_comes_from_elsewhere() -> None:
    for path in WEB.iterdir():
        source = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", source), (
            path
        )
        if path.suffix == ".html":
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", source), path
        if path.suffix != ".svg":
            assert not re.search(r"https?://", source), path
