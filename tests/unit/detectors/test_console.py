"""The steps of a long command: told everywhere, with a share and the time that is left where somebody looks."""

import io

from rich.console import Console

from detectors.console import Steps, bar_on


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
