"""`roadwork-miner export`: original weights to a model folder."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miner.cli.options import Config, Detector, EnvFile, Set, load_settings
from miner.errors import ConfigurationError, CouldNotStart
from miner.settings import Settings

if TYPE_CHECKING:
    from detectors.config import DetectorConfig


def export(
    env_file: EnvFile = None,
    detector: Detector = None,
    config: Config = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write; default: in MODELS_DIR.")] = None,
    pictures: Annotated[Path | None, typer.Option(help="Folder of photos for the parity check.")] = None,
    set_: Set = None,
) -> None:
    """Export the configured model to ONNX; refused when its answers differ from the library's by more than 1e-3."""
    from detectors.config import read_config

    settings = load_settings(env_file, set_, image_detector=detector, image_detector_config=config)
    with start_errors(settings):
        photos = read_photos(pictures) if pictures is not None else None
        prepare_with_progress(settings, read_config(settings.detector_config), out, photos)


def read_photos(folder: Path) -> list[bytes]:
    """Read all photos below a folder.

    Raises:
        ConfigurationError: there are none.
    """
    kinds = {".jpg", ".jpeg", ".png", ".webp"}
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in kinds)
    if not paths:
        raise ConfigurationError(f"--pictures={folder}: no {', '.join(sorted(kinds))} file in that folder")
    return [path.read_bytes() for path in paths]


def prepare_with_progress(
    settings: Settings, config: "DetectorConfig", out: Path | None, pictures: Sequence[bytes] | None
) -> None:
    """Export with a spinner that names the step, and the libraries' own chatter held back."""
    from rich.console import Console

    from detectors.export import prepare
    from detectors.manifest import Manifest

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("optimum").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", FutureWarning)
    console = Console(file=sys.stderr)
    with console.status("…") as status:

        def progress(step: str) -> None:
            console.print(f"· {step}")
            status.update(step)

        folder = prepare(
            settings.image_detector, config, settings.models_dir, out=out, pictures=pictures, progress=progress
        )
    parity = Manifest.read(folder).parity
    console.print(f"{folder}: within {parity.max_difference:.1e} of {parity.reference} on {parity.pictures} pictures")


@contextmanager
def start_errors(settings: Settings) -> Iterator[None]:
    """Turn the detectors' errors into the command line's."""
    from detectors.errors import DetectorConfigError, ImageError, ModelError

    try:
        yield
    except (DetectorConfigError, ImageError) as error:
        raise ConfigurationError(f"IMAGE_DETECTOR_CONFIG={settings.detector_config}: {error}") from error
    except ModelError as error:
        raise CouldNotStart(str(error)) from error
