"""The promotion of a model: the operator's settings file is edited, the miner reloads, and what serves is looked at.

Whatever goes wrong, the lines are put back as they were spelt.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from dotenv import dotenv_values

from detectors.files import write_safely
from detectors.models.config import find_config, read_config
from detectors.models.manifest import Manifest
from miner.errors import ConfigurationError, CouldNotStart
from miner.metrics import graph_hash
from miner.settings.env_file import in_quotes, read_file, spelt, with_lines, write_file
from miner.settings.origins import Origin
from miner.settings.settings import Settings

MODEL = ("IMAGE_DETECTOR", "IMAGE_DETECTOR_CONFIG")
SHADOW = ("SHADOW_DETECTOR", "SHADOW_DETECTOR_CONFIG")
Lines = dict[str, str | None]  # values as they are spelt in a settings file; None: no line


@dataclass(frozen=True, slots=True)
class ReloadEnd:
    """How a reload ended, in words, and the sums of the graph that serves and the shadow's file afterwards."""

    ok: bool
    text: str
    serves: str = ""
    shadow: str = ""


Reload = Callable[[], ReloadEnd | None]  # None: no miner runs


@dataclass(frozen=True, slots=True)
class ChosenModel:
    """A model as settings name it."""

    detector: str
    config: str

    @property
    def words(self) -> str:
        """The model in few words."""
        return f"{self.detector} {self.config}"

    def lines(self, keys: tuple[str, str]) -> Lines:
        """Return it as the lines of a settings file."""
        return dict(zip(keys, map(in_quotes, (self.detector, self.config)), strict=True))

    def assignments(self, keys: tuple[str, str]) -> str:
        """Return it for somebody who sets it by hand."""
        return " ".join(f"{key}={value}" for key, value in self.lines(keys).items())


def serving(settings: Settings) -> ChosenModel:
    """Return what serves by these settings."""
    return ChosenModel(settings.image_detector, settings.detector_config)


def whole_teacher(settings: Settings, folder: Path) -> Path:
    """Return what serves as a teacher: of a cascade all branches, whatever the first ones say, in a file of its own."""
    path = find_config(settings.detector_config)
    config = read_config(str(path))
    if not config.stages:
        return path
    document = config.model_dump(mode="json", exclude_defaults=True, exclude={"stages", "fallbacks"})
    whole = folder / "teacher.yaml"
    write_safely(whole, yaml.safe_dump(document, sort_keys=False).encode())
    return whole


@dataclass(frozen=True, slots=True)
class SettingsPlace:
    """Where the model is set.

    Attributes:
        file: that may be edited; None: none may.
        why: none may.
        reload: has the running miner read it.
    """

    file: Path | None
    why: str
    reload: Reload


def file_to_edit(env_file: Path | None, origins: Mapping[str, Origin]) -> tuple[Path | None, str]:
    """Return the settings file, if what stands in it counts; else why none is edited."""
    if env_file is None:
        return None, "there is no settings file (--env-file)"
    if env_file.is_relative_to("/proc"):
        return None, "the settings come through a pipe"
    for key in (*MODEL, *SHADOW):
        origin = origins[key.lower()]
        if origin.kind not in ("file", "default"):
            return None, f"{key} is set by the {origin.kind}, which wins over {env_file}"
    return env_file, ""


def set_shadow(place: SettingsPlace, model: ChosenModel, keep: Callable[[Lines], None]) -> tuple[bool, str]:
    """Put a model beside the one that serves; return whether it is set, and what is to be said.

    Args:
        place: where.
        model: the second one.
        keep: is told of the lines before, before they change.
    """
    by_hand = f"set {model.assignments(SHADOW)} and reload"
    if place.file is None:
        return False, f"{place.why}: {by_hand}"
    try:
        _change(place.file, read_file(place.file), model.lines(SHADOW), keep)
    except ConfigurationError as error:
        return False, f"{error}: {by_hand}"
    try:
        end = place.reload()
    except CouldNotStart as error:
        return True, f"it stands in {place.file}, and counts from the next reload: {error}"
    if end is None:
        return True, f"it stands in {place.file}; no miner runs, and it counts from the next start"
    if not end.ok:
        return True, f"it stands in {place.file}; the miner has not reloaded: {end.text}"
    if not end.shadow:
        return True, f"it stands in {place.file}; the miner has reloaded, and shows no shadow yet"
    return True, "it scores a sample of the requests in idle time"


def promote(place: SettingsPlace, lines: Lines, folder: Path | None, keep: Callable[[Lines], None]) -> str:
    """Have other lines serve; return what is to be said.

    Args:
        place: where.
        lines: of the settings file.
        folder: of the model that has to serve then; None: whichever.
        keep: is told of the lines before, before they change.

    Raises:
        CouldNotStart: the miner does not take it, or serves another; what served before does, and the file is as it
            was.
        ConfigurationError: the file can't be written.
        ModelError: the folder holds no model.
    """
    by_hand = " ".join(f"{key}={value}" for key, value in lines.items() if value)
    file = place.file
    if file is None:
        raise CouldNotStart(f"{place.why}: set {by_hand} there and reload or restart the miner")
    wanted = graph_hash(Manifest.read(folder)) if folder is not None else None
    text = read_file(file)
    written = _change(file, text, lines, keep)

    def restore() -> None:
        now = read_file(file)  # which somebody may have edited meanwhile
        write_file(file, text if now == written else with_lines(now, {name: spelt(text, name) for name in lines}))

    try:
        end = place.reload()
    except CouldNotStart as error:
        restore()
        raise CouldNotStart(f"not promoted, {file} is as it was: {error}") from error
    if end is None:
        return f"it stands in {file}; no miner runs, and it counts from the next start"
    if end.ok and wanted in (None, end.serves):
        return f"it serves: {end.text}"
    restore()
    if end.ok:  # it reads another file, or its flags win
        place.reload()
        raise CouldNotStart(
            f"not promoted: the miner has reloaded, and serves another model all the same: its settings do not come "
            f"from {file}, which is as it was; set {by_hand} where they do"
        )
    raise CouldNotStart(f"not promoted, the old model keeps serving and {file} is as it was: {end.text}")


def refuse_gone(lines: Lines) -> None:
    """See that what is to serve again is still there: no miner that runs might be there to refuse it.

    Raises:
        DetectorConfigError: its file is gone, or says what no detector takes.
        ModelError: its folder holds no model.
    """
    text = "".join(f"{name}={value}\n" for name, value in lines.items() if value is not None)
    config = dotenv_values(stream=io.StringIO(text)).get(MODEL[1])
    found = read_config(config) if config else None
    for one in (found, *(found.branches or {}).values()) if found is not None else ():
        if one.model_folder is not None:
            Manifest.read(one.model_folder)


def put_back(place: SettingsPlace, lines: Lines) -> None:
    """Put lines back that a killed promotion has left.

    Raises:
        ConfigurationError: the file can't be written.
    """
    if place.file is not None:
        write_file(place.file, with_lines(read_file(place.file), lines))


def _change(file: Path, text: str, lines: Lines, keep: Callable[[Lines], None]) -> str:
    """Change lines once what undoes it is kept, so that no kill between the two loses it; return the new text."""
    keep({name: spelt(text, name) for name in lines})
    changed = with_lines(text, lines)
    write_file(file, changed)
    return changed
