"""Formats of numbers, times and others' words, for the page, the terminal and the log."""

import time
from collections.abc import Iterable, Sequence

from detectors.redact import shown_within

NO_VALUE = "–"
SPARK_BLOCKS = " ▁▂▃▄▅▆▇█"


def duration(seconds: float | None) -> str:
    """Return `9.4 ms` or `1.25 s`."""
    if seconds is None:
        return NO_VALUE
    if seconds < 0.0995:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds * 1e3:.0f} ms" if seconds < 0.9995 else f"{seconds:.2f} s"


def age(seconds: float | None) -> str:
    """Return `12 s`, `3 min`, `2.5 h` or `4.0 days`; `0 s` of what a clock that was set back has still to come."""
    if seconds is None:
        return NO_VALUE
    seconds = max(0.0, seconds)
    for limit, unit, name in ((90, 1, "s"), (5400, 60, "min")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def size(count: float | None) -> str:
    """Return `345 MiB`, `1.25 GiB` or `22.8 GiB`."""
    if count is None:
        return NO_VALUE
    gibibytes = count / 2**30
    return f"{count / 2**20:.0f} MiB" if gibibytes < 1 else f"{gibibytes:.{2 if gibibytes < 9.995 else 1}f} GiB"


def share(value: float | None) -> str:
    """Return `99.3 %`; only all is 100 %."""
    if value is None:
        return NO_VALUE
    return "100 %" if value >= 1 else f"{min(value, 0.9999) * 100:.{2 if value > 0.999 else 1}f} %"


def number(value: float | None, digits: int = 0) -> str:
    """Return `12 345`."""
    return NO_VALUE if value is None else f"{value:,.{digits}f}".replace(",", " ")


def short_number(value: float | None) -> str:
    """Return `12`, `12 345` or `1.2 M`."""
    return f"{value / 1e6:.1f} M" if value is not None and value >= 999_999.5 else number(value)


def fraction(value: float | None) -> str:
    """Return `.81`, as the reward is written."""
    return NO_VALUE if value is None else f"{value:.2f}".removeprefix("0")


def clock(at: float) -> str:
    """Return the time of day, UTC."""
    return time.strftime("%H:%M:%S", time.gmtime(at))


def day_clock(at: float) -> str:
    """Return day, month and time of day, UTC: `13 Nov 08:00`."""
    return time.strftime("%d %b %H:%M", time.gmtime(at))


def moment(at: float) -> str:
    """Return date and time, UTC, as HTML wants them."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def spark(values: Iterable[float], top: float) -> str:
    """Return a line of blocks; what is not zero is seen."""
    steps = len(SPARK_BLOCKS) - 1
    return "".join(
        SPARK_BLOCKS[min(steps, max(1, round(value / top * steps)))] if value else SPARK_BLOCKS[0] for value in values
    )


def bars(counts: Sequence[int]) -> str:
    """Return counts by tenths as blocks between two lines, the largest as high as can be."""
    return f"│{spark(map(float, counts), max(counts))}│" if any(counts) else NO_VALUE


def one_line(text: str, limit: int = 200) -> str:
    """Return what somebody else wrote as something for a log: one short line, printable, no address in full."""
    text = shown_within(" ".join("".join(c if c.isprintable() else " " for c in text).split()))
    return text if len(text) <= limit else text[: limit - 1] + "…"
