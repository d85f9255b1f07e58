"""The guarded HTTP server of both ports: connections come in, whole requests go on to an ASGI application."""
