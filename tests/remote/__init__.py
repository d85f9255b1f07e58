"""A real engine of several machines' size; only `make test-remote` collects these tests."""
