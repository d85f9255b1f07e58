"""The cache of onnxruntime's optimised graphs, beside the model, so that a start need not optimise again.

Keyed by the graph, the library's version and the CPU's instruction sets, for any of which it may differ, and verified
by its own sums: what does not match is thrown away and made again. Several stay side by side, as releases with other
libraries may serve the same model, until one was not served for weeks.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

from detectors.machine import read_cpu
from detectors.models import MODEL_FILE
from detectors.models.manifest import Manifest, sha256
from detectors.models.store import LARGE_GRAPH_BYTES

log = logging.getLogger(__name__)

FOLDER = "optimized"
SUMS = "sums.json"
UNUSED_DAYS = 30  # after which another key's graph is removed; it is as large as the model
DAY = 86400  # seconds


def cached_graph(folder: Path, manifest: Manifest, *, weights: bool = True) -> Path | None:
    """Return the optimised graph of a model folder if there is one for this library and CPU, and it is whole.

    Args:
        folder: of the model.
        manifest: of that folder.
        weights: whether the file of its weights is looked at too, which takes as long as loading it.
    """
    cache = folder / FOLDER / key(manifest)
    if not cache.is_dir():  # it comes whole or not at all, and another process may be making it just now
        return None
    try:
        sums = json.loads((cache / SUMS).read_bytes())
        names = [name for name in sums if weights or name == MODEL_FILE]
        if names and all(sha256(cache / name) == sums[name] for name in names):
            with contextlib.suppress(OSError):  # read-only, perhaps
                os.utime(cache)  # in use
            return cache / MODEL_FILE
        log.warning("%s does not match its sums and is made again", cache)
    except (OSError, ValueError, TypeError):
        log.warning("%s can't be read and is made again", cache)
    shutil.rmtree(cache, ignore_errors=True)
    return None


def ensure_graph(folder: Path, manifest: Manifest) -> Path | None:
    """Return the optimised graph, made first if need be; None where the folder can't be written.

    Made in a process of its own: writing it takes twice the memory of serving it.

    Raises:
        ModelError: the graph to be optimised does not match its sum.
    """
    found = cached_graph(folder, manifest)
    if found is not None:
        return found
    if not os.access(folder, os.W_OK):
        if sum(path.stat().st_size for path in folder.glob(f"{MODEL_FILE}*")) >= LARGE_GRAPH_BYTES:
            log.warning(
                "%s is read-only and holds no graph optimised for this machine, so each start takes longer: "
                "`%s -m detectors.backends.ort_cache %s` makes it, as its owner",
                folder, sys.executable, folder,
            )  # fmt: skip
        return None
    manifest.verify(folder)
    command = [sys.executable, "-m", "detectors.backends.ort_cache", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True)  # noqa: S603
    if done.returncode != 0:
        log.warning("no optimised graph for %s: %s", folder, done.stderr.decode(errors="replace").strip()[-200:])
    return cached_graph(folder, manifest)


def key(manifest: Manifest, version: str | None = None, root: Path = Path("/")) -> str:
    """Return the key of a graph on this machine; `version` is onnxruntime's, that which is installed by default."""
    facts = [sorted(manifest.files.items()), version or _installed(), sorted(read_cpu(root)[1])]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _installed() -> str:
    """Return onnxruntime's version without its import, which takes as long as checking a graph's sums."""
    try:
        return metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:  # another distribution of it
        import onnxruntime

        return str(onnxruntime.__version__)


def make_graph(folder: Path, manifest: Manifest) -> None:
    """Optimise the graph of a model folder for this machine and write it into the cache."""
    import onnxruntime

    target = folder / FOLDER / key(manifest)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    _sweep(target.parent)
    partial.mkdir(parents=True)
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = os.fspath(partial / MODEL_FILE)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", MODEL_FILE + ".data"
        )
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        onnxruntime.InferenceSession(os.fspath(folder / MODEL_FILE), options, providers=["CPUExecutionProvider"])
        sums = {path.name: sha256(path) for path in partial.iterdir()}
        (partial / SUMS).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
        _remove_unused(target)
        with contextlib.suppress(OSError):  # another process was first: its graph is as good, and loaded already
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_unused(target: Path) -> None:
    """Remove graphs of other keys that nobody has served for long: of older libraries, or another machine."""
    for old in target.parent.iterdir():
        if old == target or old.name.endswith(".partial"):
            continue
        with contextlib.suppress(FileNotFoundError):  # another process removes it too
            if old.stat().st_mtime < time.time() - UNUSED_DAYS * DAY:
                shutil.rmtree(old, ignore_errors=True)


def _sweep(cache: Path) -> None:
    """Remove what processes that were killed have left half done."""
    for left in cache.glob("*.partial"):
        pid = left.name.split(".")[-2]
        if not Path("/proc", pid).exists() or pid == str(os.getpid()):
            shutil.rmtree(left, ignore_errors=True)


if __name__ == "__main__":
    make_graph(Path(sys.argv[1]), Manifest.read(Path(sys.argv[1])))
