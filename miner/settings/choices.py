"""A name out of a closed list."""

import difflib
from collections.abc import Sequence


def one_of(value: str, allowed: Sequence[str]) -> str:
    """Return the name as the list spells it; large and small letters are the same.

    Raises:
        ValueError: it is not allowed; the message lists what is, and what is near.
    """
    spelt = next((name for name in allowed if name.lower() == value.strip().lower()), None)
    if spelt is None:
        near = nearest(value, allowed)
        raise ValueError(f"allowed: {', '.join(allowed)}" + (f" (did you mean {near}?)" if near else ""))
    return spelt


def nearest(value: str, allowed: Sequence[str]) -> str | None:
    """Return the name that was probably meant, or None."""
    return next(iter(difflib.get_close_matches(value, allowed, n=1)), None)
