"""Images that stand in for those of a registry: small Debian systems, made by debootstrap and cached."""

import fcntl
import platform
from pathlib import Path

from tests.process.environments import cache, run
from tests.service.rootfs import mirror

SUITE = "trixie"
PYTHON = f"docker.io/library/python:3.13-slim-{SUITE}"
PACKAGES = {"python": ("python3", "python3-venv"), "watch": ("prometheus", "prometheus-alertmanager")}
# What Debian's slim images leave out too.
LEFT_OUT = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/cache/apt",
    "var/lib/apt/lists",
)


def archive(name: str, folder: Path) -> Path:
    """Return the packed system with these packages, made in a folder on first use."""
    packed = cache() / f"container-{name}-{SUITE}.tar"
    packed.parent.mkdir(parents=True, exist_ok=True)
    with packed.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not packed.is_file():
            root = folder / name
            include = ",".join(("ca-certificates", *PACKAGES[name]))
            run("debootstrap", "--variant=minbase", f"--include={include}", SUITE, str(root), _debian())
            run("rm", "-rf", *(str(root / part) for part in LEFT_OUT))
            if name == "python":  # where the official image has it
                for program in ("python", "python3"):
                    (root / "usr/local/bin" / program).symlink_to("/usr/bin/python3")
            partial = packed.with_suffix(".partial")
            run("tar", "-cf", str(partial), "-C", str(root), ".")
            partial.replace(packed)
            run("rm", "-rf", str(root))
    return packed


def _debian() -> str:
    machine = platform.freedesktop_os_release()
    return mirror(machine["VERSION_CODENAME"])[0] if machine["ID"] == "debian" else "http://deb.debian.org/debian"
