"""`hf:owner/name@revision`: a model from a Hugging Face hub, its weights and texts only."""

import hashlib
import os
import re
from glob import escape
from pathlib import Path, PurePosixPath
from shutil import rmtree
from typing import Any
from urllib.parse import urlsplit

from bantam.errors import BadInput, BantamError, JobFailed
from bantam.sources import cache
from bantam.sources.archives import safe_name
from bantam.sources.door import RETRY, Unreached, failure, fetching, reach, suggest

REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
COMMIT = re.compile(r"[0-9a-f]{40}")
# No pickle (.bin, .pt) and no code (.py) is ever fetched.
TEXTS = {".json", ".jinja", ".txt", ".model"}
NAMES = re.compile(r"(LICEN[CS]E|NOTICE|README|USE_POLICY)(\.md|\.txt)?")


def fetch(repository: str, inside: str) -> cache.Entry:
    """The kept model; with `inside`, of its weights only that one file."""
    repo, at, asked = repository.partition("@")
    asked = asked if at else "main"
    if not REPO.fullmatch(repo) or not REVISION.fullmatch(asked) or ".." in repo + asked:
        raise BadInput(
            f"hf:{repository} is no repository",
            "write hf:owner/name or hf:owner/name@revision, for one file of it hf:owner/name#file",
        )
    same = cache.find("hf", repo, inside)
    held = next((e for e in reversed(same) if asked == e.version or asked in e.asked), None)
    if held and COMMIT.fullmatch(asked):
        return held
    return reach(f"hf:{repository}", held, lambda: _download(repo, asked, inside, same))


def _download(repo: str, asked: str, inside: str, same: list[cache.Entry]) -> cache.Entry:
    # Else the hub's client tells the hub which programs and versions run here.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi, errors, snapshot_download
    from huggingface_hub.utils.tqdm import tqdm

    class Silent(tqdm):  # we draw our own bar
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **(kwargs | {"disable": True}))  # type: ignore[no-untyped-call]

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        commit = str(api.repo_info(repo, revision=asked).sha)
        if not COMMIT.fullmatch(commit):
            raise JobFailed(f"hf:{repo}: the hub named no commit for {asked}", RETRY)
        for entry in same:
            if entry.version == commit:
                return cache.also_asked(entry, asked)
        tree = api.list_repo_tree(repo, recursive=True, revision=commit)
        listed = {file.path: file for file in tree if hasattr(file, "size")}
        chosen = [listed[name] for name in _choose(repo, list(listed), inside)]
        with cache.partial_folder() as folder:
            files = folder / "files"
            host = urlsplit(api.endpoint).hostname or "the hub"
            with fetching(repo, host, sum(file.size for file in chosen), folder):
                snapshot_download(
                    repo,
                    revision=commit,
                    local_dir=files,
                    allow_patterns=[escape(file.path) for file in chosen],
                    endpoint=api.endpoint,
                    tqdm_class=Silent,
                )
            rmtree(files / ".cache", ignore_errors=True)  # the hub's own notes
            for file in chosen:
                _check(files / file.path, file)
            return cache.keep(
                folder,
                "hf",
                repo,
                version=commit,
                variant=inside,
                asked=asked,
                origin=f"{repo}@{commit}",
            )
    except BantamError:
        raise
    except errors.GatedRepoError:
        raise BadInput(
            f"hf:{repo} is open only to those who accepted its terms",
            "accept them on the model's page, then run `hf auth login`",
        ) from None
    except errors.RevisionNotFoundError:
        raise BadInput(
            f"hf:{repo} has no revision {asked}", "look the revisions up on its page"
        ) from None
    except errors.RepositoryNotFoundError:
        raise BadInput(
            f"the hub shows no model {repo}",
            "check the spelling; if it is private, run `hf auth login`",
        ) from None
    except Exception as error:  # which HTTP client raises, and what, changes with the hub's version
        raise failure(f"hf:{repo}", error) from None


def _choose(repo: str, names: list[str], inside: str) -> list[str]:
    """All texts, and one kind of weights (safetensors before GGUF) or only `inside`."""
    texts = [n for n in names if PurePosixPath(n).suffix in TEXTS or NAMES.fullmatch(n)]
    tensors = [n for n in names if n.endswith(".safetensors")]
    ggufs = [n for n in names if n.endswith(".gguf")]
    weights = [n for n in tensors if "/" not in n] or tensors or ggufs
    if inside:
        weights = [inside]
        if inside not in texts + tensors + ggufs:
            raise BadInput(
                f"hf:{repo} has no {inside} that we read", suggest(inside, tensors + ggufs)
            )
    elif not weights:
        raise BadInput(f"hf:{repo} has no .safetensors and no .gguf", "name a repository that does")
    elif weights == ggufs and len(ggufs) > 1:
        raise BadInput(
            f"hf:{repo} has several models: {', '.join(ggufs[:30])}",
            f"name one, as in hf:{repo}#{ggufs[0]}",
        )
    return [safe_name(name) for name in dict.fromkeys(texts + weights)]


def _check(path: Path, listed: Any) -> None:
    if path.stat().st_size != listed.size:
        raise Unreached(f"{listed.path} broke off before its end", RETRY)
    if listed.lfs:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != listed.lfs.sha256:
                raise JobFailed(f"{listed.path} is not the file that the hub has listed", RETRY)
