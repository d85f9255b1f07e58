"""The flight recorder: a bounded ring on disk of the last requests."""

from typing import Literal

Mode = Literal["off", "meta", "images"]
FOLDER = "recorder"  # in the state folder
