"""What a figure shows and where, for the tests of plots: texts, legends, and axes in pixels."""

from collections.abc import Iterator
from itertools import permutations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox


def look_through(figure: "Figure") -> None:
    """Assert that the figure's edge cuts no text and no legend, and that a legend covers neither data nor texts."""
    figure.canvas.draw()
    whole = figure.bbox
    texts = {text: text.get_window_extent() for axes in figure.axes for text in _texts(axes) if text.get_text().strip()}
    texts |= {text: text.get_window_extent() for text in figure.texts}
    cut = [text.get_text() for text, box in texts.items() if not _is_within(box, whole)]
    assert not cut, f"cut: {cut}"
    legends = [legend for axes in figure.axes if (legend := axes.get_legend()) is not None]
    boxes = [legend.get_window_extent() for legend in legends]
    for legend, box in zip(legends, boxes, strict=True):
        names = [text.get_text() for text in legend.get_texts()]
        assert _is_within(box, whole), f"cut: {names}"
        assert not [axes for axes in figure.axes if _overlap(box, axes.get_window_extent())], f"{names} cover data"
        covered = [text.get_text() for text, other in texts.items() if _overlap(box, other)]
        assert not covered, f"{names} cover {covered}"
    assert not [names for names in permutations(boxes, 2) if _overlap(*names)]


def _texts(axes: "Axes") -> Iterator["Text"]:
    """Yield what is written on axes and beside them; ticks beyond the limits are never drawn."""
    yield from axes.texts
    yield from (axes.title, axes._left_title, axes._right_title)  # type: ignore[attr-defined]
    if not axes.axison:
        return
    for axis in (axes.xaxis, axes.yaxis):
        yield axis.label
        low, high = sorted(axis.get_view_interval())
        for place, label in zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=False):
            if low <= place <= high:
                yield label


def _is_within(box: "Bbox", whole: "Bbox") -> bool:
    return bool(box.x0 >= whole.x0 and box.y0 >= whole.y0 and box.x1 <= whole.x1 and box.y1 <= whole.y1)


def _overlap(one: "Bbox", other: "Bbox") -> bool:
    return bool(one.x0 < other.x1 and other.x0 < one.x1 and one.y0 < other.y1 and other.y0 < one.y1)
