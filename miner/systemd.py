"""The notify protocol of systemd: nothing happens where there is no systemd."""

import os
import socket


def notify(message: str) -> None:
    """Send one message (`READY=1`, `STOPPING=1`, `STATUS=…`) to the supervisor, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(message.encode(), address)
