"""The page at /: the loaded models to try, in a browser. It asks nothing but this server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, Request, Response

from bantam.serve.shelf import Shelf

FOLDER = Path(__file__).with_name("page")
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing from elsewhere, no script or style in the page itself, and no frame around it: what a
# model writes stays text, whatever it is.
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def routes(shelf: Shelf) -> APIRouter:
    """GET / and the files of the page. It asks the other interfaces for all else, `shelf` too."""
    router = APIRouter(include_in_schema=False)
    for file in sorted(FOLDER.iterdir()):
        if file.suffix in MEDIA:
            path = "/" if file.name == "index.html" else f"/page/{file.name}"
            router.add_api_route(path, _sent(file), methods=["GET", "HEAD"])
    return router


def _sent(file: Path) -> Callable[[Request], Awaitable[Response]]:
    content, media = file.read_bytes(), MEDIA[file.suffix]

    async def send(request: Request) -> Response:
        return Response(content, media_type=media, headers=HEADERS)

    return send
