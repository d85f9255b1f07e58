"""The feedback loop: recorded photos come in; labels, figures on real traffic and a better model go out."""

from typing import Literal

FOLDER = "labels"  # in the state folder
IMPROVEMENTS = "improvements"  # likewise: a folder for each

Reason = Literal["random", "error", "disagreement", "unsure", "unlike", "import"]  # why a photo was to be labelled
BY_ANSWERS: tuple[Reason, ...] = ("error", "disagreement", "unsure")  # that follow from what models say of a photo
SAMPLE = 10  # one recorded photo of so many is of the random sample


def is_sampled(digest: str) -> bool:
    """Return whether a photo is of the random tenth of the traffic, which alone says how right a model is.

    It follows from the content, so a photo is of it whoever asks, whatever models say of it; none of these is learnt
    from, and none of the others is counted.

    Args:
        digest: SHA-256 of the photo's file, in hexadecimal.
    """
    return int(digest[:8], 16) % SAMPLE == 0
