"""Photos: decoded under limits, read from labelled folders, changed as validators change them, or drawn."""
