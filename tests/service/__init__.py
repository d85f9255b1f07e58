"""The service on a booted systemd: `make test-service`, as root."""
