"""A detector's YAML file, with the keys of StreetVision's own."""

import difflib
import logging
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detectors.errors import DetectorConfigError

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).parent / "configs"


class DetectorConfig(BaseModel):
    """Where a detector's model comes from and what its outputs mean. Exactly one of the three sources is set."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=False, coerce_numbers_to_str=True)

    hf_repo: str | None = Field(None, description="a Hugging Face repository, or a local folder of the same files")
    revision: str = Field("main", description="branch, tag or, better, commit of hf_repo")
    weights_path: Path | None = Field(None, description="an Ultralytics .pt file")
    model_folder: Path | None = Field(None, description="a folder that `roadwork-miner export` has written")
    roadwork_label: str = Field("Roadwork", description="the label that means roadwork")
    roadwork_class_index: int = Field(1, ge=0, description="the YOLO class that means roadwork")
    config_name: str | None = Field(None, description="of the original files; not needed")
    weights: str | None = Field(None, description="of the original files; not needed")
    path: Path = Field(Path(), exclude=True, description="the YAML file itself")

    @property
    def source(self) -> str:
        """The source in words, for messages."""
        return str(self.hf_repo or self.weights_path or self.model_folder)


def find_config(name: str) -> Path:
    """Find a YAML file by path, or by name among the shipped ones.

    Raises:
        DetectorConfigError: there is none.
    """
    for candidate in (Path(name).expanduser(), SHIPPED / name):
        if candidate.is_file():
            return candidate.resolve()
    shipped = ", ".join(sorted(path.name for path in SHIPPED.glob("*.yaml")))
    raise DetectorConfigError(f"no detector configuration {name!r}; give a path to a YAML file, or one of: {shipped}")


def read_config(name: str) -> DetectorConfig:
    """Read and validate a YAML file; relative paths in it are taken from its own folder.

    Raises:
        DetectorConfigError: missing, not YAML, a wrong value, or not exactly one source.
    """
    path = find_config(name)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DetectorConfigError(f"{path.name}: can't be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise DetectorConfigError(f"{path.name}: a mapping of keys to values is needed")
    _warn_of_unknown(path, values)
    try:
        config = DetectorConfig(**{str(key): value for key, value in values.items()} | {"path": path})
    except ValidationError as error:
        faults = (f"{fault['loc'][0]}={fault['input']!r}: {fault['msg']}" for fault in error.errors())
        raise DetectorConfigError(f"{path.name}: {'; '.join(faults)}") from error
    sources = [key for key in ("hf_repo", "weights_path", "model_folder") if getattr(config, key) is not None]
    if len(sources) != 1:
        found = " and ".join(sources) or "none"
        raise DetectorConfigError(
            f"{path.name}: exactly one of hf_repo, weights_path, model_folder is needed; found {found}"
        )
    return _anchored(config)


def _warn_of_unknown(path: Path, values: dict[str, Any]) -> None:
    known = [key for key in DetectorConfig.model_fields if key != "path"]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            log.warning("%s: unknown key %s%s", path.name, key, f" (did you mean {near[0]}?)" if near else "")


def _anchored(config: DetectorConfig) -> DetectorConfig:
    """Make paths absolute; a `hf_repo` that is a folder on this disk counts as one."""
    home = config.path.parent
    if config.hf_repo is not None:
        local = home / Path(config.hf_repo).expanduser()
        if local.is_dir() or config.hf_repo.startswith(("/", ".", "~")):
            return config.model_copy(update={"hf_repo": str(local.resolve())})
        return config
    key = "weights_path" if config.weights_path is not None else "model_folder"
    path: Path = getattr(config, key)
    return config.model_copy(update={key: (home / path.expanduser()).resolve()})
