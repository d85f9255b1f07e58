"""When memory counts as short."""

import re
from math import inf
from pathlib import Path

import pytest

from detectors.machine import Headroom, read_headroom
from miner.inference.health import LEAST, MEBIBYTE, MOST, Pressure, is_short, reserve
from tests.unit.detectors.test_machine import tree

GIGABYTE = 2**30


def test_a_twentieth_of_the_limit_is_kept_free_but_never_little_nor_much() -> None:
    assert reserve(GIGABYTE) == 0.05 * GIGABYTE
    assert reserve(64 * MEBIBYTE) == LEAST
    assert reserve(64 * GIGABYTE) == reserve(inf) == MOST


@pytest.mark.parametrize(
    ("left", "pressed", "short"), [(52, False, False), (51, False, True), (60, True, True), (65, True, False)]
)
def test_once_short_more_has_to_be_free_again(left: int, pressed: bool, short: bool) -> None:
    assert is_short(Headroom(left * MEBIBYTE, GIGABYTE, "cgroup"), pressed=pressed) is short


def test_it_says_what_is_left_of_what() -> None:
    rooms = [Headroom(20 * MEBIBYTE, GIGABYTE, "cgroup")] * 2 + [Headroom(400 * MEBIBYTE, GIGABYTE, "cgroup")]
    pressure = Pressure(lambda: rooms.pop(0))
    pressure.look()
    assert pressure.obstacle is not None
    assert re.fullmatch("memory is short: 20 MiB .* cgroup.* 1024.* 51 .*", pressure.obstacle)
    pressure.look()
    assert pressure.obstacle is None


def test_free_memory_that_could_be_given_back_is_no_shortage() -> None:
    rooms = [Headroom(20 * MEBIBYTE, GIGABYTE), Headroom(400 * MEBIBYTE, GIGABYTE)]
    pressure = Pressure(lambda: rooms.pop(0))
    pressure.look()
    assert pressure.obstacle is None
    assert not rooms


def test_the_group_with_the_least_left_counts_whatever_its_limit(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/miner\n",
            "sys/fs/cgroup/pod/miner/memory.max": "1000\n",
            "sys/fs/cgroup/pod/miner/memory.current": "500\n",
            "sys/fs/cgroup/pod/memory.max": "2000\n",
            "sys/fs/cgroup/pod/memory.current": "1900\n",
        },
    )
    assert read_headroom(root) == Headroom(100, 2000, "cgroup")


def test_cache_is_free_but_for_mapped_files(tmp_path: Path) -> None:
    stat = "anon 300\ninactive_file 100\nactive_file 250\nfile_mapped 200\nmapped_file 200\n"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "1000\n",
            "sys/fs/cgroup/memory.current": "900\n",
            "sys/fs/cgroup/memory.stat": stat,
        },
    )
    assert read_headroom(root) == Headroom(100 + 150, 1000, "cgroup")


def test_version_1_counts_its_children_too(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory/docker/abc"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n",
            f"{folder}/memory.limit_in_bytes": "1000",
            f"{folder}/memory.usage_in_bytes": "900",
            f"{folder}/memory.stat": "inactive_file 1\ntotal_inactive_file 50\ntotal_active_file 0\n",
        },
    )
    assert read_headroom(root) == Headroom(150, 1000, "cgroup")


def test_without_a_limit_the_machines_own_memory_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a\n",
        "sys/fs/cgroup/a/memory.max": "max\n",
        "sys/fs/cgroup/a/memory.current": "6\n",
    }
    assert read_headroom(tree(tmp_path, files)) == Headroom(4000 * 1024, 8000 * 1024, "machine")


def test_nothing_to_read_is_no_shortage(tmp_path: Path) -> None:
    assert read_headroom(tmp_path) == Headroom(inf, inf)
    assert not is_short(read_headroom(tmp_path), pressed=True)
