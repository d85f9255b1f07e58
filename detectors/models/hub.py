"""The Hugging Face hub: the files of a model, and what it means when the hub refuses them."""

import glob
from pathlib import Path

from detectors.errors import ModelError, in_one_line
from detectors.models.checkpoint import FIRST, weight_names

ROUNDS = 3  # what config.json names may be an index, which names shards

UNAUTHORISED, FORBIDDEN, NOT_FOUND = 401, 403, 404


def fetch(repo: str, revision: str, within: str) -> Path:
    """Return a repository's folder in the hub's cache, with exactly the files that its model consists of.

    Args:
        repo: `owner/name`.
        revision: branch, tag or commit.
        within: the folder of the model in the repository, or nothing.

    Raises:
        ModelError: the hub refuses them, or can't be reached and they are not in the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    names, fetched, wanted = set(FIRST), set[str](), revision
    try:
        for _ in range(ROUNDS):
            patterns = [glob.escape(f"{within}/{name}".removeprefix("/")) for name in sorted(names - fetched)]
            snapshot = Path(snapshot_download(repo, revision=wanted, allow_patterns=patterns))
            wanted = snapshot.name  # the commit: a branch may move between two rounds
            fetched |= names
            names = set(weight_names(snapshot / within))
            if names <= fetched:
                break
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ModelError(f"{repo} at revision {revision} {_reason(error, repo)}") from error
    if not (snapshot / within).is_dir():
        raise ModelError(f"{repo} at revision {revision} has no folder {within!r} (subfolder)")
    return snapshot


def _reason(error: BaseException, repo: str) -> str:
    """Return why a repository can't be had, in the hub's own words where it said any, and what can be done."""
    from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

    cause: BaseException | None = error
    while cause is not None and getattr(cause, "response", None) is None:  # the refusal may be another error's cause
        cause = cause.__cause__
    if not isinstance(cause, HfHubHTTPError) or (response := cause.response) is None:
        return f"can't be fetched and is not in the cache: {in_one_line(error)}"
    status, code = response.status_code, response.headers.get("X-Error-Code")
    said = response.headers.get("X-Error-Message") or cause.server_message or response.reason or "no reason given"
    words = f"{' '.join(said.split()).rstrip('.')} ({status})"
    if isinstance(cause, RevisionNotFoundError):
        return f"is not on the hub: {words}: a branch, tag or commit of it is needed (revision)"
    page = "/".join([*str(response.url).split("/")[:3], repo])
    return f"is refused by the hub: {words}: {way_out(status, code, said, page)}"


def way_out(status: int, code: str | None, said: str, page: str) -> str:
    """Return what can be done about a refusal.

    Args:
        status: of the hub's answer.
        code: its X-Error-Code.
        said: its X-Error-Message.
        page: of the repository.
    """
    another = "or name another model (hf_repo)"
    if code == "GatedRepo":
        return f"accept its terms at {page}, and set HF_TOKEN to a token of that account; {another}"
    if status == UNAUTHORISED and "credentials" in said:
        return f"HF_TOKEN is not a valid token: make another one; {another}"
    if status == FORBIDDEN:
        return f"the account or the token of HF_TOKEN lacks the right to read it: see {page}; {another}"
    if status in (UNAUTHORISED, NOT_FOUND):
        return f"it is private, or there is none of this name: set HF_TOKEN to a token that may read it; {another}"
    return f"the hub has a fault, or wants less to be asked: try again later; {another}"
