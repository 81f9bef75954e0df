"""The dashboard: static files that use only the public API, served without a key."""

from fastapi import APIRouter, Request, Response

from app.web_assets import Asset, assets
from core.errors import NotFound

router = APIRouter(include_in_schema=False)

# Nothing inline, nothing from elsewhere, nothing evaluated; in no other page's frame.
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Accept-Encoding",
}


@router.head("/")
@router.get("/")
def page(request: Request) -> Response:
    """Return the page."""
    return _answer(request, assets()["index.html"])


@router.head("/assets/{asset}")
@router.get("/assets/{asset}")
def file(request: Request, asset: str) -> Response:
    """Return what the page is made of."""
    if asset not in assets():
        raise NotFound("The dashboard has no such file. Load `/` again: it may be of an earlier version.")
    return _answer(request, assets()[asset])


def _answer(request: Request, asset: Asset) -> Response:
    headers = _HEADERS | {
        "ETag": asset.etag,
        "Cache-Control": "max-age=31536000, immutable" if asset.immutable else "no-cache",
    }
    if request.headers.get("if-none-match", "").removeprefix("W/") == asset.etag:
        return Response(status_code=304, headers=headers)
    content = asset.content
    if "gzip" in request.headers.get("accept-encoding", ""):
        content, headers["Content-Encoding"] = asset.zipped, "gzip"
        # The same bytes behind another coding are not the same bytes, so the tag is a weak one.
        headers["ETag"] = f"W/{asset.etag}"
    return Response(content, headers=headers, media_type=asset.media_type)
