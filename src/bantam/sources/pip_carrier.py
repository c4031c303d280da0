"""Runs in a child process: find one release with the user's own pip, and carry one file of it here.

Only pip's finder and session are used, so that the user's index, mirror, proxy and certificates
count, and nothing of the package is run (`pip download` would run the setup.py of a source
distribution).

    python -I pip_carrier.py NAME SPECIFIER FORM HELD FILE

FORM is `any` or `sdist`; HELD lists the versions, parted by commas, that need not be carried again.
Prints one JSON line before the bytes flow into FILE: {"version", "file", "host", "size", "hash"},
{"held": version}, {"missing": why} or {"unreached": why}. When the flow breaks off, a second line:
{"unreached": why}, or {"refused": why} if it was this disk.
All else that goes wrong is a traceback: this pip is not one that we know.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

FORMS = {"any": ("-none-any.whl", ".tar.gz", ".zip", ".whl"), "sdist": (".tar.gz", ".zip")}


def main(name: str, specifier: str, form: str, held: str, target: str) -> None:
    from pip._internal.commands import create_command
    from pip._vendor.packaging.specifiers import SpecifierSet
    from pip._vendor.requests.exceptions import RequestException
    from pip._vendor.urllib3.exceptions import HTTPError

    log = _Lines()
    logging.getLogger("pip").addHandler(log)
    logging.getLogger("pip").setLevel(logging.DEBUG)

    command: Any = create_command("download")
    # Source distributions are opened and never built, so a ban on building them does not apply.
    options, _ = command.parse_args(
        ["--no-cache-dir", "--no-input", "--no-binary=:none:", "--only-binary=:none:"]
    )
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options, session, ignore_requires_python=True)
        best = finder.find_best_candidate(name, specifier=SpecifierSet(specifier)).best_candidate
        every = finder.find_all_candidates(name)
        links = [c.link for c in every if best and c.version == best.version]
        # Data in a wheel are the same for every machine, so a pure one comes first.
        link = next((k for end in FORMS[form] for k in links if k.filename.endswith(end)), None)
        if link is None:
            tell(**_why_not(name, specifier, form, {c.version for c in every}, log.lines))
        elif str(best.version) in held.split(","):
            tell(held=str(best.version))
        else:
            try:
                _carry(session, link, str(best.version), Path(target))
            except (RequestException, HTTPError) as error:
                tell(unreached=str(error))
            except OSError as error:
                tell(refused=error.strerror)


def _carry(session: Any, link: Any, version: str, target: Path) -> None:
    address = link.url_without_fragment
    response = session.get(address, headers={"Accept-Encoding": "identity"}, stream=True)
    response.raise_for_status()
    size = str(response.headers.get("Content-Length", ""))
    tell(
        version=version,
        file=link.filename,
        host=urlsplit(address).hostname or "this computer",
        size=int(size) if size.isdigit() else None,
        hash=[link.hash_name, link.hash] if link.hash else None,
    )
    with target.open("wb") as out:
        while chunk := response.raw.read(1 << 18):
            out.write(chunk)


def _why_not(
    name: str, specifier: str, form: str, versions: set[Any], log: list[str]
) -> dict[str, str]:
    # An index that does not answer is only a line in pip's log; one without the package says 404.
    failed = [line for line in log if "Could not fetch URL" in line and " 404 " not in line]
    if versions:
        wanted = "source distribution of " if form == "sdist" else ""
        newest = ", ".join(map(str, sorted(versions)[-5:]))
        return {"missing": f"no {wanted}{name}{specifier} that can be used; there is {newest}"}
    if failed:
        return {"unreached": failed[-1]}
    return {"missing": f"no package is called {name}"}


class _Lines(logging.Handler):
    """Keeps what pip logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def tell(**values: object) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
