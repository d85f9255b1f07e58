"""The sheet of a label check: one HTML file with small photos in it, and nothing from elsewhere."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from detectors.photos.image import preview
from detectors.photos.labelled import CLASSES, Photo
from detectors.training.label_check import JudgedPhoto, LabelReport, NearPair
from miner import formats

MOST_DOUBTS, MOST_PAIRS = 120, 60  # shown; the table has all
LEFT_OUT = 50  # lines


def render(report: LabelReport, data: str) -> bytes:
    """Return the sheet.

    Args:
        report: what was found.
        data: where the photos are, for the title.

    Raises:
        ImageError: a photo has changed since it was judged.
        OSError: it is not there any more.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("miner.cli", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["share"] = _whole_share
    style = (files("miner.status.page") / "style.css").read_text(encoding="utf-8")
    text = environment.get_template(
        "label_sheet.html"
    ).render(
        style=Markup(style),  # noqa: S704 - no text of anybody else
        report=report,
        data=PurePath(data).name or data,
        doubts=[_judged(one) for one in report.doubts[:MOST_DOUBTS]],
        hard=[_judged(one) for one in report.hard_negatives],
        contradictions=_pairs([pair for pair in report.pairs if pair.is_contradictory]),
        duplicates=_pairs([pair for pair in report.pairs if not pair.is_contradictory]),
        contradictory=sum(pair.is_contradictory for pair in report.pairs),
        left_out=report.skipped[:LEFT_OUT],
    )
    return text.encode(errors="backslashreplace")


def _shown(photo: Photo) -> dict[str, Any]:
    return {"image": preview(photo.path.read_bytes()), "name": photo.name, "label": CLASSES[photo.label]}


def _judged(one: JudgedPhoto) -> dict[str, Any]:
    return _shown(one.photo) | {"roadwork": one.roadwork}


def _pairs(pairs: Sequence[NearPair]) -> list[dict[str, Any]]:
    return [
        {"photos": [_shown(pair.one), _shown(pair.other)], "correlation": pair.correlation,
         "same_file": pair.one.digest == pair.other.digest}
        for pair in pairs[:MOST_PAIRS]
    ]  # fmt: skip


def _whole_share(value: float) -> str:
    return formats.share(value) if value > 0.99 else f"{value:.0%}".replace("%", " %")
