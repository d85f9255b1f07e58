"""The inventory of prepared models: a models folder comes in, its model folders, their sizes and contents go out."""

import shutil
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from detectors.errors import ModelError
from detectors.files import held_alone
from detectors.models.manifest import NAME, Manifest

PARTIAL = ".partial"  # the end of a folder's name while it is filled
ABANDONED_SECONDS = 86_400.0  # seconds after which nobody fills a folder any more
REFS = "refs"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A folder of a models folder: a model in one precision, or what an export that was cut short has left.

    Attributes:
        folder: `models/<name>/<revision>`, of a faster variant with `.<precision>-<backend>` behind it.
        bytes: on disk, optimised graphs included.
    """

    folder: Path
    bytes: int

    @property
    def name(self) -> str:
        """What a command calls it."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def is_whole(self) -> bool:
        """Whether it is a model, and nobody fills it any more."""
        return (self.folder / NAME).is_file() and not self.folder.name.endswith(PARTIAL)

    @property
    def is_abandoned(self) -> bool:
        """Whether it is no model, and nobody has filled it for a day."""
        newest = max((path.stat().st_mtime for path in (self.folder, *self.folder.rglob("*"))), default=0.0)
        return self.folder.name.endswith(PARTIAL) and time.time() - newest > ABANDONED_SECONDS

    def is_part_of(self, folder: Path) -> bool:
        """Return whether it is this folder's model, in any precision."""
        return self.folder == folder or (
            self.folder.parent == folder.parent and self.folder.name.startswith(f"{folder.name}.")
        )


def stored_models(models_dir: Path) -> list[StoredModel]:
    """Return what is in a models folder, by name."""
    found = {path.parent for path in models_dir.glob(f"*/*/{NAME}")}
    found |= {path for path in models_dir.glob(f"*/*{PARTIAL}") if path.is_dir()}
    return [StoredModel(folder, size_of(folder)) for folder in sorted(found)]


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    sizes = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # another process has thrown it away meanwhile
            if path.is_file():
                sizes.append(path.lstat().st_size)
    return sum(sizes)


def named(models: Sequence[StoredModel], name: str) -> list[StoredModel]:
    """Return the models that a name means: NAME (every revision), NAME/REVISION (every precision), or one folder.

    A revision may be cut short, as a commit may.
    """
    wanted, _, revision = name.strip("/").partition("/")
    of_name = [model for model in models if model.folder.parent.name == wanted]
    exact = [model for model in of_name if model.folder.name == revision]
    if exact:
        return [model for model in of_name if model.is_part_of(exact[0].folder)]
    return [model for model in of_name if model.folder.name.startswith(revision)]


def unused(models: Iterable[StoredModel], used: Collection[Path]) -> list[StoredModel]:
    """Return the models that are of none of these folders, and what is abandoned."""
    return [
        model
        for model in models
        if model.is_abandoned
        or not (model.folder.name.endswith(PARTIAL) or any(model.is_part_of(folder) for folder in used))
    ]


def remove(model: StoredModel) -> None:
    """Remove a model's folder, and the names of branches that meant its commit.

    The manifest goes first: without it a folder counts as not prepared, whatever stops the rest. Of a link the link
    alone goes.

    Raises:
        ModelError: something can't be removed, or another process reads it.
    """
    with held_alone(model.folder) as is_free:
        if not is_free:
            raise ModelError(f"{model.folder} can't be removed: a running process uses it")
        _remove(model)


def _remove(model: StoredModel) -> None:
    parent = model.folder.parent
    try:
        if model.folder.is_symlink():
            model.folder.unlink()
        else:
            (model.folder / NAME).unlink(missing_ok=True)
            shutil.rmtree(model.folder)
        for ref in (parent / REFS).glob("*"):
            if ref.read_text(encoding="utf-8").strip() == model.folder.name:
                ref.unlink()
        for folder in (parent / REFS, parent):
            with suppress(OSError):  # there is something in it still
                folder.rmdir()
    except OSError as error:
        raise ModelError(f"{error.filename or model.folder} can't be removed: {error.strerror or error}") from error


def faults_of(folder: Path, manifest: Manifest) -> str:
    """Return which file is missing or differs from its sum; empty: none."""
    try:
        manifest.verify(folder)
    except ModelError as error:
        return str(error)
    return ""
