"""The forms in which a known secret may be written: spelt out with anything in between, numbered, split, in base64.

A text is reduced to the characters that count (letters, hex digits, base64), a secret is looked for in what is left,
and the place goes back to the whole text. So separators need no list: lines, commas, quotes and numbers all drop out.
"""

import base64
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator

ESCAPES = r"\\[nrt]"  # a line's end within JSON
LEAST = 8  # bytes of a secret that is looked for in base64, of which fewer would be found by chance
WORDS = 12  # of the shortest recovery phrase
HEX = re.compile(r"(?:0x)?([0-9a-fA-F]{32,})")

Span = tuple[int, int]


class Reduced:
    """A text without the characters that don't count, and where each that does stands in it."""

    def __init__(self, text: str, counting: str) -> None:
        """Keep the runs that a class of characters, such as `[a-z]`, matches; an escaped line's end is none."""
        kept = [run for run in re.finditer(rf"{ESCAPES}|(?P<kept>{counting}+)", text) if run["kept"]]
        self.text = "".join(run[0] for run in kept)
        self.lower = self.text.lower()  # as long: it is all ASCII
        self._starts = [run.start() for run in kept]
        self._offsets = [0]
        for run in kept:
            self._offsets.append(self._offsets[-1] + len(run[0]))

    def spans(self, form: str, *, any_case: bool = False) -> Iterator[Span]:
        """Yield where a form stands in the whole text."""
        text = self.lower if any_case else self.text
        at = text.find(form)
        while at >= 0:
            yield self._place(at), self._place(at + len(form) - 1) + 1
            at = text.find(form, at + len(form))

    def _place(self, index: int) -> int:
        run = bisect_right(self._offsets, index) - 1
        return self._starts[run] + index - self._offsets[run]


def spans_of(text: str, secrets: Iterable[str]) -> list[Span]:
    """Return where secrets stand in a text, in any of these forms; in order, and none within another."""
    letters, digits = Reduced(text, "[A-Za-z]"), Reduced(text, "[0-9A-Za-z]")
    coded = Reduced(text.replace("-", "+").replace("_", "/"), "[A-Za-z0-9+/]")  # the alphabet for addresses too
    found: list[Span] = []
    for secret in secrets:
        digit = HEX.fullmatch(secret)
        words = re.findall(r"[a-z]+", secret.lower())
        if digit:
            found += (_with_prefix(text, span) for span in digits.spans(digit[1].lower(), any_case=True))
        elif len(words) >= WORDS:
            found += letters.spans("".join(words), any_case=True)
        known = [secret.encode()]
        if digit:  # its digits alone too: with or without `0x` before them
            known += [digit[1].encode(), *([bytes.fromhex(digit[1])] if len(digit[1]) % 2 == 0 else [])]
        for core in {core for data in known if len(data) >= LEAST for core in _cores(data)}:
            found += coded.spans(core)
    return merged(found)


def merged(spans: Iterable[Span]) -> list[Span]:
    """Return the spans in order, those that touch as one."""
    whole: list[Span] = []
    for start, end in sorted(spans):
        if whole and start <= whole[-1][1]:
            whole[-1] = whole[-1][0], max(end, whole[-1][1])
        else:
            whole.append((start, end))
    return whole


def _with_prefix(text: str, span: Span) -> Span:
    start, end = span
    return (start - 2 if text[max(0, start - 2) : start].lower() == "0x" else start), end


def _cores(data: bytes) -> Iterator[str]:
    """Yield what stands in base64 for certain, by where among three bytes the secret begins."""
    for shift in range(3):
        whole = base64.b64encode(bytes(shift) + data).decode().rstrip("=")
        first = (0, 2, 3)[shift]  # characters that also tell of what stands before
        last = 0 if (shift + len(data)) % 3 == 0 else 1  # and of what stands behind
        yield whole[first : len(whole) - last]
