"""Photos: decoded under limits, read from labelled folders, transformed as validators do, or drawn."""

MAX_PIXELS = 25_000_000  # a 25 MP photo decodes to 75 MB; nothing larger is a street photo
