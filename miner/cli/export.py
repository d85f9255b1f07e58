"""`roadwork-miner export`: original weights to a model folder, and faster precisions of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from detectors.load import is_prepared
from detectors.models.config import read_config
from detectors.models.manifest import Precision
from detectors.models.sources import model_folder
from detectors.quantize.gate import MAX_FLIPS
from detectors.registry import MERGED
from miner.cli.common import Config, Detector, EnvFile, Set, load_settings
from miner.cli.preparation import prepare_faster, prepare_fp32, put_into_repository, read_photos, start_errors
from miner.errors import ConfigurationError
from miner.settings.validators import AUTO

if TYPE_CHECKING:
    from detectors.quantize.schedule import MergeRequest


def export(
    env_file: EnvFile = None,
    detector: Detector = None,
    config: Config = None,
    backend: Annotated[str | None, typer.Option(help="For a faster precision: onnx or openvino; else both.")] = None,
    precision: Annotated[Precision, typer.Option(help="All but fp32 pass a gate.")] = "fp32",
    merge: Annotated[
        str | None,
        typer.Option(
            metavar="R|auto",
            help="Merge so many tokens in each layer of a ViT, in fp32 or int8; auto: as many as are alike.",
        ),
    ] = None,
    max_flips: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of images on which a faster precision may disagree.")
    ] = MAX_FLIPS,
    out: Annotated[Path | None, typer.Option(help="Folder to write (fp32); default: in MODELS_DIR.")] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Folder of photos to compare on; subfolders roadwork and no_roadwork label them."),
    ] = None,
    layout: Annotated[
        Literal["ovms", "triton"] | None,
        typer.Option(help="Put the exported model into --out, a repository of OpenVINO Model Server or Triton."),
    ] = None,
    half: Annotated[
        bool,
        typer.Option("--half", help="Store fp32 weights in 16 bits, half the disk; they are widened at load."),
    ] = False,
    set_: Set = None,
) -> None:
    """Export the configured model to ONNX.

    Refused when its answers differ from the library's by more than 1e-3.
    A faster precision is calibrated and compared with fp32 on the pictures, and refused when too many change sides.
    """
    asked = f"--precision={precision}" if merge is None else f"--merge={merge}"
    precision, request = _merging(precision, merge)
    if layout is not None and out is None:
        raise ConfigurationError(f"--layout={layout}: needs --out, the folder of the repository")

    if half and precision != "fp32":
        raise ConfigurationError(f"--half: is of fp32 alone; {asked} has a storage of its own")
    if half and layout is not None:
        raise ConfigurationError(f"--half: a repository (--layout={layout}) has its own storage")
    settings = load_settings(
        env_file, set_, image_detector=detector, image_detector_config=config, image_detector_backend=backend
    )
    with start_errors(settings):
        photos = read_photos(pictures) if pictures is not None else None
        yaml = read_config(settings.detector_config)
        if precision == "fp32" and layout is None:
            prepare_fp32(settings, out, photos, half=half)
            return
        if not is_prepared(yaml, settings.models_dir):
            prepare_fp32(settings, None, photos)
        if layout is not None and out is not None:
            print(put_into_repository(settings, model_folder(yaml, settings.models_dir), precision, layout, out))
            return
        prepare_faster(settings, yaml, precision, max_flips, photos, request, asked=asked)


def _merging(precision: Precision, merge: str | None) -> "tuple[Precision, MergeRequest]":
    """Return the precision with tokens merged, if that was asked for, and how many of them in a layer.

    Raises:
        ConfigurationError: it is no number, or the precision has no such variant.
    """
    if merge is None:
        return precision, "auto"
    if merge != AUTO and not (merge.isascii() and merge.isdigit() and int(merge)):
        raise ConfigurationError(f"--merge={merge}: a number of tokens from 1 on is needed, or auto")
    if precision not in (*MERGED, *MERGED.values()):
        raise ConfigurationError(f"--merge={merge}: --precision={precision} has no merged tokens: {', '.join(MERGED)}")
    chosen = cast("Precision", MERGED.get(precision, precision))
    return chosen, "auto" if merge == AUTO else int(merge)
