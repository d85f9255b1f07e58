"""Model files: configuration, manifest, original weights and what a folder says of its classes."""
