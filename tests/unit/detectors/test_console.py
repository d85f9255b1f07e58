"""The steps of a long command: told everywhere, with a share and the time that is left where somebody looks."""

import io
import re

import pytest
from rich.console import Console

from detectors.console import LINE_SECONDS, BarState, BarUpdate, Screen, Steps, bar_on


def shown(*, terminal: bool) -> tuple[str, list[str]]:
    """Return what a console gets while two steps go on, one of them counted, and what is told."""
    screen, told = io.StringIO(), list[str]()
    with bar_on(Console(file=screen, width=100, force_terminal=terminal)) as bar:
        steps = Steps(told.append, bar)
        steps("fp32 answers")
        for _ in steps.each(range(4)):
            bar.refresh()
        bar.refresh()
        steps("measuring [int8]")
        bar.refresh()
    return screen.getvalue(), told


def test_a_terminal_shows_the_share_that_is_done_of_what_is_counted() -> None:
    screen, told = shown(terminal=True)
    assert told == ["fp32 answers", "measuring [int8]"]
    for share in ("0%", "25%", "50%", "75%"):
        assert f"{share}" in screen
    assert "measuring [int8]" in screen, "no markup"
    last = screen[screen.index("measuring") :]
    assert "%" not in last.replace("\x1b", ""), "nobody knows how long it takes"


def test_elsewhere_nothing_but_the_steps_is_told() -> None:
    screen, told = shown(terminal=False)
    assert (screen, told) == ("", ["fp32 answers", "measuring [int8]"])


def test_what_is_counted_stays_the_sequence_that_it_is() -> None:
    things = Steps().each(["a", "b", "c"])
    assert (len(things), things[0], things[1:], list(things), list(things)) == (
        3,
        "a",
        ["b", "c"],
        ["a", "b", "c"],
        [*"abc"],
    )


def test_who_goes_through_it_in_part_leaves_no_bar_behind() -> None:
    with bar_on(Console(file=io.StringIO(), force_terminal=True)) as bar:
        steps = Steps(bar=bar)
        steps("one")
        first, second = iter(steps.each(range(9))), iter(steps.each(range(9)))
        assert (next(first), next(second), next(first)) == (0, 0, 1)
        first.close()  # type: ignore[attr-defined]
        del second
        assert [task.total for task in bar.tasks] == [None]


class Clock:
    """Seconds that pass when it is said."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def train(screen: Screen, clock: Clock) -> BarUpdate:
    """Do 2,000 steps of 60,000 in an hour, with a validation at the end."""
    with screen.bar("training", 60_000) as bar:
        for step in range(1, 2001):
            clock.now += 1.8
            bar(step, "loss 0.412, accuracy 100%")
        bar(2000, what="validating")
    return bar


@pytest.mark.parametrize("width", [80, 72])
def test_a_narrow_terminal_shows_loss_accuracy_and_the_time_left(width: int) -> None:
    written, clock = io.StringIO(), Clock()
    train(Screen(Console(file=written, width=width, force_terminal=True), clock), clock)
    frames = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue()).replace("\r", "\n").splitlines()
    shown = [line for line in frames if "validating" in line]
    assert shown
    assert {len(line) for line in shown} == {width}
    assert all(line.endswith("2000/60000 loss 0.412, accuracy 100% 29.0 h left") for line in shown)


def test_a_file_gets_a_line_every_minute() -> None:
    written, clock = io.StringIO(), Clock()
    train(Screen(Console(file=written), clock), clock)
    lines = written.getvalue().splitlines()
    assert len(lines) == pytest.approx(3600 / LINE_SECONDS, abs=2)
    assert lines[0] == "training: 34 of 60000, loss 0.412, accuracy 100%, 30.0 h left"


def test_a_bar_that_goes_on_judges_the_time_left_by_what_it_has_seen_done() -> None:
    class Listener:
        def __init__(self) -> None:
            self.states: list[BarState | None] = []

        def line_said(self, words: str) -> None:
            raise AssertionError(words)

        def bar_moved(self, state: BarState | None) -> None:
            self.states.append(state)

    clock = Clock()
    screen = Screen(Console(file=io.StringIO()), clock)
    screen.listener = listener = Listener()
    with screen.bar("training", 100, 90) as bar:
        clock.now += 5
        bar(91)
    assert listener.states[:2] == [BarState("training", 90, 100), BarState("training", 91, 100, left=45.0)]
    assert listener.states.pop() is None
    with screen.bar("reading photos") as bar:
        clock.now += 5
        bar(1)
        bar(2, total=4)
    assert [str(state) for state in listener.states[2:]] == [
        "reading photos: 0",
        "reading photos: 1",
        "reading photos: 2 of 4, 5 s left",
        "None",
    ]
