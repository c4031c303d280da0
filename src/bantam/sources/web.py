"""`https://...`: one file, as it is."""

import re
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from bantam.errors import BadInput, JobFailed
from bantam.sources import cache
from bantam.sources.door import MAX_BYTES, RETRY, Unreached, failure, fetching, reach

LOOPBACK = {"127.0.0.1", "::1", "localhost"}
SILENCE = 30  # seconds without a byte
CHUNK = 1 << 20


def fetch(address: str) -> cache.Entry:
    """The kept file; an address that is held is not asked again."""
    _check(address)
    held = cache.find("https", address)
    return held[-1] if held else reach(address, None, lambda: _download(address))


def _check(address: str) -> None:
    parts = urlsplit(address)
    if not (parts.scheme == "https" and parts.hostname) and not (
        parts.scheme == "http" and parts.hostname in LOOPBACK
    ):
        raise BadInput(
            f"{address} is not safe to fetch", "use an address that begins with https://"
        )
    if parts.username or parts.password:
        # It would end up in the lock and in the model card.
        raise BadInput(f"the address at {parts.hostname} holds a password", "take it out")


def _download(address: str) -> cache.Entry:
    path = urlsplit(address).path
    name = re.sub(r"[^A-Za-z0-9._-]", "_", unquote(path).rpartition("/")[2]).lstrip(".")[-100:]
    request = Request(address, headers={"User-Agent": "bantam", "Accept-Encoding": "identity"})  # noqa: S310
    try:
        with (
            cache.partial_folder() as folder,
            build_opener(_Redirects).open(request, timeout=SILENCE) as response,
        ):
            target = folder / "files" / (name or "file")
            target.parent.mkdir()
            _save(response, target)
            return cache.keep(folder, "https", address, origin=address)
    except HTTPError as error:
        if error.code < 500 and error.code not in (408, 429):
            raise BadInput(f"{address}: {error.code} {error.reason}", "check the address") from None
        raise Unreached(f"{address}: {error.code} {error.reason}", RETRY) from None
    except (OSError, HTTPException) as error:
        raise failure(address, error) from None


def _save(response: Any, target: Path) -> None:
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    host = urlsplit(response.url).hostname
    with fetching(target.name, host, total, target), target.open("xb") as out:
        while chunk := response.read(CHUNK):
            if out.tell() + len(chunk) > MAX_BYTES:
                raise JobFailed(f"{target.name} has no end", "fetch it by hand")
            out.write(chunk)
    if total is not None and target.stat().st_size != total:
        raise Unreached(f"{target.name} broke off before its end", RETRY)


class _Redirects(HTTPRedirectHandler):
    """Follows a redirect only to where we would have gone ourselves."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        _check(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
