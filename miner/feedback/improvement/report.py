"""The report of an improvement: one HTML file with small photos in it, and nothing from elsewhere."""

import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from detectors.console import duration
from detectors.errors import ImageError
from detectors.evaluation.estimates import Estimate
from detectors.files import write_safely
from detectors.photos.image import preview
from miner import formats
from miner.feedback.improvement.judgement import JudgedAnswer, judge, judged_answers, signed
from miner.feedback.improvement.partition import STORE
from miner.feedback.improvement.run import REPORT
from miner.feedback.improvement.state import PHOTOS, Improvement

SHORT = 12  # characters of a digest
MOST = 60  # photos of a section; what both get wrong may be many
WORDS: dict[str, str] = {
    "random": "random tenth", "labelled": "labelled traffic", "chosen": "labelled traffic", "own": "own photos",
}  # fmt: skip
PARTS = {"learnt": "learnt from", "judged": "judged by"}


def write_report(folder: Path, state: Improvement) -> None:
    """Write a run's report into its folder.

    Raises:
        OSError: the disk does not take it.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("miner.feedback.improvement", ""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"share": _share, "interval": _interval, "gain": _gain, "duration": duration}
    style = (files("miner.status.page") / "style.css").read_text(encoding="utf-8")
    answers = judged_answers(folder)
    judgement = judge(answers)
    paths = {path.stem: path for path in (folder / PHOTOS / STORE).iterdir()}
    text = environment.get_template("report.html").render(
        style=Markup(style),  # noqa: S704 - no text of anybody else
        name=folder.name,
        state=state,
        judgement=judgement,
        words=_headline(judgement.words),
        together=state.steps["judge"].facts.get("together"),
        sides=[(name, side) for name, side in judgement.sides.items()],
        lost=_shown([one for one in answers if one.change < 0], paths),
        won=_shown([one for one in answers if one.change > 0], paths),
        wrong=_shown([one for one in answers if not one.change and not one.is_right(one.after)], paths),
        counts=state.steps["collect"].facts["counts"],
        parts=PARTS,
        at=time.strftime("%Y-%m-%d %H:%M", time.localtime(state.started)),
        most=MOST,
    )
    write_safely(folder / REPORT, text.encode(errors="backslashreplace"), mode=0o600)


def _headline(words: str) -> tuple[str, str]:
    first, _, rest = words.partition(": ")
    return first, rest


def _shown(answers: Sequence[JudgedAnswer], paths: dict[str, Path]) -> dict[str, Any]:
    """Return photos as the template takes them, those that the candidate is surest of first; the rest is counted."""
    ordered = sorted(answers, key=lambda one: -abs(one.after - 0.5))
    rows: list[dict[str, Any]] = []
    for one in ordered[:MOST]:
        image = ""
        with suppress(ImageError, OSError, KeyError):
            image = preview(paths[one.digest].read_bytes())
        name = one.name.replace(one.digest, one.digest[:SHORT])
        rows.append({
            "image": image, "name": name, "label": "roadwork" if one.is_roadwork else "no_roadwork",
            "source": WORDS[one.source], "before": one.before, "after": one.after,
        })  # fmt: skip
    return {"photos": rows, "all": len(answers)}


def _share(value: float | None) -> str:
    return "–" if value is None else formats.share(value) if value > 0.99 else f"{value:.0%}".replace("%", " %")


def _interval(value: Estimate | None) -> str:
    return "–" if value is None else f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def _gain(value: Estimate | None) -> str:
    return "–" if value is None else signed(value)
