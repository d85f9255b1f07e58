"""Damage done to bytes, for fuzzing: hypothesis draws it, and makes it smaller when something breaks."""

from dataclasses import dataclass
from typing import Literal

from hypothesis import strategies as st

Kind = Literal["replace", "insert", "delete", "repeat", "cut"]


@dataclass(frozen=True)
class Damage:
    """One change at a place between 0 (the start) and 1 (the end)."""

    kind: Kind
    place: float
    data: bytes
    length: int

    def done_to(self, whole: bytes) -> bytes:
        at = int(self.place * len(whole))
        if self.kind == "replace":
            return whole[:at] + self.data + whole[at + len(self.data) :]
        if self.kind == "insert":
            return whole[:at] + self.data + whole[at:]
        if self.kind == "delete":
            return whole[:at] + whole[at + self.length :]
        if self.kind == "repeat":
            return whole[: at + self.length] + whole[at:]
        return whole[:at]


damages = st.lists(
    st.builds(
        Damage,
        st.sampled_from(["replace", "replace", "insert", "delete", "repeat", "cut"]),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=12),
        st.integers(1, 64),
    ),
    min_size=1,
    max_size=4,
)


def damaged(whole: bytes, changes: list[Damage]) -> bytes:
    for change in changes:
        whole = change.done_to(whole)
    return whole
