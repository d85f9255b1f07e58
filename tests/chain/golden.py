"""A real runtime's metadata, from the SDK's source distribution: fetched with pip once, checked against its hash."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VERSION = "11.3.0"
SHA256 = "8ce05029a712866048c6cf3e3d5df1592ac896175f5b4227f63044b7e7b7edb3"
FILE = f"bittensor-{VERSION}.tar.gz"
MEMBER = f"bittensor-{VERSION}/tests/fixtures/golden.json"
CACHE = Path(os.environ.get("ROADWORK_TEST_CACHE") or Path(__file__).parents[2] / ".cache")


def golden() -> dict[str, Any]:
    """Return the fixture; its `metadata.v15_hex` and `network` make a node.

    Raises:
        RuntimeError: pip can't fetch the distribution, or what it fetched is not what was pinned.
    """
    archive = CACHE / FILE
    if not archive.exists():
        _fetch(archive)
    if _sha256(archive) != SHA256:
        raise RuntimeError(f"{archive} is not the pinned distribution; delete it")
    with tarfile.open(archive) as tar:
        file = tar.extractfile(MEMBER)
        assert file is not None
        loaded: dict[str, Any] = json.load(file)
        return loaded


def _fetch(archive: Path) -> None:
    # `--no-binary bittensor`, not `:all:`: that would build the build tools as well, 46 s in place of 4 s.
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        options = ["--quiet", "--no-deps", "--no-binary", "bittensor", "--dest", folder]
        command = [sys.executable, "-m", "pip", "download", *options, f"bittensor=={VERSION}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        if _sha256(Path(folder, FILE)) != SHA256:
            raise RuntimeError(f"pip's {FILE} is not the pinned distribution")
        Path(folder, FILE).replace(archive)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
