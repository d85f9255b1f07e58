"""The shipped detector configurations."""
