"""The sources of original weights: where they are, which revision they have, and their download."""

import glob
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from detectors.errors import DetectorConfigError, ModelError, in_one_line
from detectors.files import write_safely
from detectors.models.adapter import AdapterConfig, merge
from detectors.models.checkpoint import (
    ADAPTER_CONFIG,
    FIRST_FILES,
    adapter_names,
    revision_files,
    weight_files,
    weight_names,
)
from detectors.models.config import KEYS, SHIPPED, DetectorConfig, data_files, read_config, usable
from detectors.models.documents import shown
from detectors.models.manifest import NAME, Manifest, sha256

log = logging.getLogger(__name__)

DOWNLOAD_ROUNDS = 3  # what config.json names may be an index, which names shards

UNAUTHORISED, FORBIDDEN, NOT_FOUND = 401, 403, 404
TRY_LATER = "the hub has a fault, or wants less to be asked: try again later"

COMMIT = re.compile(r"[0-9a-f]{40}")
MERGED = "lora-"  # how the revision of an adapter and its base begins


def named_model(name: str) -> DetectorConfig:
    """Return the configuration of a model by its YAML file or its prepared folder, with the detector that it is for.

    Raises:
        DetectorConfigError: there is none, or a value is wrong.
        ModelError: a prepared folder's manifest can't be read.
    """
    with usable(shown(name)):
        folder = Path(name).expanduser().resolve()
        is_prepared = (folder / NAME).is_file()
    if is_prepared:
        config = DetectorConfig.model_validate({"model_folder": folder, "path": folder / NAME})
    else:
        config = read_config(name)
    if config.model_folder is not None:
        kind = Manifest.read(config.model_folder).detector
    else:
        kind = "Ensemble" if config.branches else "ViT" if config.hf_repo or config.onnx_path else "YOLOClassifier"
    return config.model_copy(update={"detector": kind})


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

    names, fetched, wanted = set(FIRST_FILES), set[str](), revision
    try:
        for _ in range(DOWNLOAD_ROUNDS):
            patterns = [glob.escape(f"{within}/{name}".removeprefix("/")) for name in sorted(names - fetched)]
            snapshot = Path(snapshot_download(repo, revision=wanted, allow_patterns=patterns))
            wanted = snapshot.name  # the commit: a branch may move between two rounds
            fetched |= names
            names = {*weight_names(snapshot / within), *adapter_names(snapshot / within)}
            if names <= fetched:
                break
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ModelError(f"{repo} at revision {revision} {_reason(error, repo)}") from error
    if not (snapshot / within).is_dir():
        raise ModelError(f"{repo} at revision {revision} has no folder {within!r} (subfolder)")
    return snapshot


@dataclass(frozen=True, slots=True)
class HubRefusal:
    """What the hub answered in place of what it was asked for."""

    status: int
    code: str | None  # its X-Error-Code
    words: str  # its own sentence
    url: str
    of_revision: bool


def hub_refusal(error: BaseException) -> HubRefusal | None:
    """Return the hub's refusal within an error of its library; None: it did not answer."""
    from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

    cause: BaseException | None = error
    while not (cause is None or (isinstance(cause, HfHubHTTPError) and cause.response is not None)):
        cause = cause.__cause__  # the refusal may be another error's
    if not isinstance(cause, HfHubHTTPError) or (response := cause.response) is None:
        return None
    said = response.headers.get("X-Error-Message") or cause.server_message or response.reason or "no reason given"
    code, is_of_revision = response.headers.get("X-Error-Code"), isinstance(cause, RevisionNotFoundError)
    return HubRefusal(response.status_code, code, " ".join(said.split()).rstrip("."), str(response.url), is_of_revision)


def _reason(error: BaseException, repo: str) -> str:
    """Return why a repository can't be had, in the hub's own words where it said any, and what can be done."""
    found = hub_refusal(error)
    if found is None:
        return f"can't be fetched and is not in the cache: {in_one_line(error)}"
    words = f"{found.words} ({found.status})"
    if found.of_revision:
        return f"is not on the hub: {words}: a branch, tag or commit of it is needed (revision)"
    page = "/".join([*found.url.split("/")[:3], repo])
    return f"is refused by the hub: {words}: {way_out(found.status, found.code, found.words, page)}"


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
    return f"{TRY_LATER}; {another}"


@dataclass(frozen=True, slots=True)
class Original:
    """The original weights on this disk: a folder or a file, its origin in words, and its revision.

    Attributes:
        resolved: of an adapter, the commit of its own, and in words that of its base where nothing pins that one.
    """

    path: Path
    origin: str
    revision: str
    resolved: tuple[str, ...] = ()


def model_folder(config: DetectorConfig, models_dir: Path) -> Path:
    """Say where the exported model is, or will be, without asking a network: `models/<name>/<revision>/`.

    Raises:
        DetectorConfigError: the local weights that the configuration names do not exist.
    """
    if config.model_folder is not None:
        return config.model_folder
    if config.branches is not None:
        return models_dir / model_name(config) / fused_revision(config, models_dir)
    return models_dir / model_name(config) / known_revision(config, models_dir)


def variant_folder(manifest: Manifest, models_dir: Path, precision: str, backend: str) -> Path:
    """Say where a faster variant of a model is, or will be; fp32 has one folder for all backends."""
    return models_dir / manifest.name / f"{manifest.revision}.{precision}-{backend}"


def model_name(config: DetectorConfig) -> str:
    """Return a file name for the model: of its repository, or of its folder or file; of an ensemble's YAML file."""
    source = str(config.path) if config.branches is not None else config.source
    name = source if is_hub(config) else Path(source).stem
    # Other preprocessing is another model, though of the same weights.
    return as_model_name(name) + ("--letterbox" if config.letterbox else "")


def as_model_name(name: str) -> str:
    """Return a name as a folder of models takes it."""
    return re.sub(r"[^A-Za-z0-9._-]+", "--", name)


def is_hub(config: DetectorConfig) -> bool:
    """Return whether the weights come from the Hugging Face hub."""
    return config.hf_repo is not None and not Path(config.hf_repo).is_absolute()


def known_revision(config: DetectorConfig, models_dir: Path) -> str:
    """Return the revision as far as it can be known from this disk: a branch is the commit it last resolved to."""
    return _remembered(config, models_dir)[0]


def fused_revision(config: DetectorConfig, models_dir: Path) -> str:
    """Return a revision for an ensemble: of its branches' models and of how they become one."""
    assert config.branches is not None
    assert config.fusion is not None
    folders = {name: model_folder(branch, models_dir) for name, branch in config.branches.items()}
    facts = [[name, config.branches[name].detector, *folder.parts[-2:]] for name, folder in folders.items()]
    facts += [[name, str(views)] for name, one in config.branches.items() if (views := one.pooled_views) is not None]
    fusions = [fusion.model_dump_json() for fusion in (config.fusion, *config.fallbacks)]
    return "fused-" + hashlib.sha256(repr([facts, fusions]).encode()).hexdigest()[:12]


def find_original(config: DetectorConfig, revision: str | None = None) -> Original:
    """Find the original weights on this disk, or get them from the hub, at a pinned commit.

    An adapter is merged into its base model, into a folder of the hub's cache that stays there. `HF_HOME`, `HF_TOKEN`
    and `HF_HUB_OFFLINE` mean what they mean to huggingface_hub.

    Raises:
        ModelError: they can't be found, got or verified.
    """
    wanted = revision or config.revision
    if wanted.startswith(MERGED) and (kept := _merged_folder(wanted)).is_dir():
        return Original(kept, config.source, wanted)
    if is_hub(config):
        pinned = config.revision if wanted.startswith(MERGED) else wanted
        original = _from_hub(str(config.hf_repo), pinned, config.subfolder or "", config.source)
    else:
        path = Path(config.source)
        original = Original(path, path.name, _local_revision(config))
    if config.hf_repo is not None and adapter_names(original.path):
        original = _with_base(original, is_hub=is_hub(config))
    if wanted.startswith(MERGED) and original.revision != wanted:
        raise ModelError(f"{config.source} and its base model are not those of {wanted} any more: prepare it again")
    return original


def remember_revision(config: DetectorConfig, models_dir: Path, revision: str, *resolved: str) -> None:
    """Write down what a branch or an adapter resolved to, so that the next start needs no network."""
    if (own := _own_revision(config)) != revision:
        ref = _ref(config, models_dir, own)
        ref.parent.mkdir(parents=True, exist_ok=True)
        write_safely(ref, "".join(f"{line}\n" for line in (revision, *resolved)).encode())


def pins(config: DetectorConfig, models_dir: Path) -> list[str]:
    """Say for each branch that was resolved to a commit, of the whole and of an ensemble's models, how it is pinned."""
    found = []
    for part in (config.branches or {"": config}).values():
        revision, *resolved = _remembered(part, models_dir) if part.hf_repo is not None else ("",)
        commit, *base = resolved or [revision]
        if is_hub(part) and COMMIT.fullmatch(commit) and commit != part.revision:
            file = f"a copy of {part.path.name}" if part.path.parent == SHIPPED else str(part.path)
            found.append(f"resolved {part.revision} to {commit}; put revision: {commit} into {file}")
        found += base
    return found


def _remembered(config: DetectorConfig, models_dir: Path) -> list[str]:
    """Return what was written down of a revision, or itself alone."""
    own = _own_revision(config)
    ref = _ref(config, models_dir, own)
    return ref.read_text(encoding="utf-8").splitlines() if ref.is_file() else [own]


def _own_revision(config: DetectorConfig) -> str:
    return config.revision if is_hub(config) else _local_revision(config)


def _ref(config: DetectorConfig, models_dir: Path, own: str) -> Path:
    return models_dir / model_name(config) / "refs" / own.replace("/", "--")


def _from_hub(repo: str, revision: str, within: str, origin: str) -> Original:
    snapshot = fetch(repo, revision, within)
    folder = snapshot / within
    _verify_blobs(folder / name for name in adapter_names(folder) if (folder / name).is_file())
    if not adapter_names(folder):
        _verify_blobs(weight_files(folder))
    return Original(folder, origin, snapshot.name)


def _with_base(adapter: Original, *, is_hub: bool) -> Original:
    """Merge an adapter into its base model, which is found first.

    Raises:
        ModelError: the base can't be found, or the two don't fit.
    """
    config = AdapterConfig.read(adapter.path)
    try:
        if (local := _local_base(adapter.path, config)) is not None:
            if is_hub:
                raise ModelError("a folder of somebody's disk: have a copy of the adapter that names a repository")
            base = Original(local, local.name, _fingerprint(local))
        else:
            base = _from_hub(config.base, config.revision or "main", "", config.base)
    except (ModelError, DetectorConfigError) as error:
        raise ModelError(f"the base model of the adapter {adapter.origin}: {config.base}: {error}") from error
    if adapter_names(base.path):
        raise ModelError(f"the base model of the adapter {adapter.origin}: {base.origin} is an adapter itself")
    resolved = [adapter.revision]
    if local is None and base.revision != config.revision:
        branch = config.revision or "main"
        resolved.append(f"resolved {branch} of the base model {base.origin} to {base.revision}")
        log.warning("%s: %s; nothing in %s pins it", adapter.origin, resolved[-1], ADAPTER_CONFIG)
    facts = repr([adapter.revision, base.revision])
    revision = MERGED + hashlib.sha256(facts.encode()).hexdigest()[:12]
    folder = _merged_folder(revision)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=folder.name) as partial:
            merge(adapter.path, base.path, Path(partial) / "model")
            shutil.rmtree(folder, ignore_errors=True)
            (Path(partial) / "model").rename(folder)
    except OSError as error:
        raise ModelError(f"{error.filename or folder}: {error.strerror or error}") from error
    origin = " on ".join(f"{one.origin}@{one.revision}" for one in (adapter, base))
    return Original(folder, origin, revision, tuple(resolved))


def _merged_folder(revision: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_ASSETS_CACHE) / "roadwork-miner" / revision


def _local_base(adapter: Path, config: AdapterConfig) -> Path | None:
    """Return the base model's folder; None: it is a repository of the hub."""
    with usable(f"{adapter / ADAPTER_CONFIG}: base_model_name_or_path={shown(config.base)}"):
        local = (adapter / Path(config.base).expanduser()).resolve()
        if local.is_dir():
            return local
        if config.base.startswith(("/", ".", "~")):
            raise ValueError("it is no folder here; a folder, or a repository of the hub, is needed")
        return None


def _verify_blobs(files: Iterable[Path]) -> None:
    """Compare the large files with their sums: the hub's cache names each after its SHA-256."""
    for path in files:
        expected = path.resolve().name
        if re.fullmatch(r"[0-9a-f]{64}", expected) and sha256(path) != expected:
            raise ModelError(f"{path} is damaged; remove it and fetch it again")


def _local_revision(config: DetectorConfig) -> str:
    """Return a revision for local weights; what the YAML file says of an ONNX file is part of the model."""
    if config.onnx_path is None:
        path = Path(config.source)
        base = _local_base(path, AdapterConfig.read(path)) if path.is_dir() and adapter_names(path) else None
        return _fingerprint(path, *([_fingerprint(base)] if base is not None else ()))
    return _fingerprint(config.onnx_path, *(repr(getattr(config, key)) for key in KEYS))


def _fingerprint(path: Path, *more: str) -> str:
    """Return a revision for local weights, from names, sizes and times: hashing 350 MB at every start is too slow."""
    if path.is_dir():
        files = revision_files(path)
    elif path.is_file():
        files = [path, *(data_files(path) if more else ())]
    else:
        raise DetectorConfigError(f"the model {path} does not exist")
    facts = [(file.name, os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in files]  # noqa: PTH116
    known = repr([facts, *more] if more else facts)
    return "local-" + hashlib.sha256(known.encode()).hexdigest()[:12]
