"""Memory and throttling, read from small copies of `/proc` and `/sys/fs/cgroup`."""

from collections.abc import Mapping
from math import inf
from pathlib import Path

from detectors.machine import Memory, Throttling, read_memory, read_throttling

STATUS = "Name:\tminer\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t4\n"
ROLLUP = "00400000-7fff rollup\nRss:                1024 kB\nPss:                 512 kB\n"
MEMINFO = "MemTotal:       8000 kB\nMemAvailable:   4000 kB\nHugePages_Total:       0\n"
PROC = {"proc/self/status": STATUS, "proc/self/smaps_rollup": ROLLUP, "proc/meminfo": MEMINFO}


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in (PROC | dict(files)).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_processs_memory_and_the_machines(tmp_path: Path) -> None:
    memory = read_memory(tree(tmp_path, {}))
    assert memory == Memory(
        resident=1024 * 1024, proportional=512 * 1024, peak=2048 * 1024, machine_available=4000 * 1024
    )


def test_an_old_kernel_has_no_rollup_and_the_resident_memory_stands_in(tmp_path: Path) -> None:
    root = tree(tmp_path, {})
    (root / "proc/self/smaps_rollup").unlink()
    assert read_memory(root).proportional == 1024 * 1024


def test_nothing_to_read_is_no_error(tmp_path: Path) -> None:
    assert read_memory(tmp_path) == Memory()
    assert read_throttling(tmp_path) == Throttling()


def test_version_2_reads_the_groups_limit_usage_and_cache(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/system.slice/miner.service"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/miner.service\n",
            f"{group}/memory.max": "1000\n",
            f"{group}/memory.current": "900\n",
            f"{group}/memory.stat": "anon 300\ninactive_file 400\n",
            f"{group}/cpu.stat": "usage_usec 5\nnr_periods 100\nnr_throttled 7\nthrottled_usec 2500000\n",
        },
    )
    memory = read_memory(root)
    assert (memory.cgroup_limit, memory.cgroup_usage, memory.cgroup_reclaimable) == (1000, 900, 400)
    assert read_throttling(root) == Throttling(100, 7, 2.5)


def test_version_1_has_a_hierarchy_for_each_controller(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n",
            "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "1000",
            "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes": "600",
            "sys/fs/cgroup/memory/docker/abc/memory.stat": "inactive_file 1\ntotal_inactive_file 200\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.stat": "nr_periods 10\nnr_throttled 3\nthrottled_time 5000000\n",
        },
    )
    memory = read_memory(root)
    assert (memory.cgroup_limit, memory.cgroup_usage, memory.cgroup_reclaimable) == (1000, 600, 200)
    assert read_throttling(root) == Throttling(10, 3, 0.005)


def test_no_limit_is_infinite_in_either_version(tmp_path: Path) -> None:
    first = tree(
        tmp_path / "1",
        {
            "proc/self/cgroup": "5:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "600\n",
        },
    )
    second = tree(
        tmp_path / "2",
        {
            "proc/self/cgroup": "0::/a\n",
            "sys/fs/cgroup/a/memory.max": "max\n",
            "sys/fs/cgroup/a/memory.current": "600\n",
        },
    )
    for root in (first, second):
        assert (read_memory(root).cgroup_limit, read_memory(root).cgroup_usage) == (inf, 600)


def test_a_parents_tighter_limit_and_its_throttling_count(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/miner\n",
            "sys/fs/cgroup/pod/miner/memory.max": "max\n",
            "sys/fs/cgroup/pod/miner/memory.current": "10\n",
            "sys/fs/cgroup/pod/memory.max": "500\n",
            "sys/fs/cgroup/pod/memory.current": "20\n",
            "sys/fs/cgroup/pod/miner/cpu.stat": "nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n",
            "sys/fs/cgroup/pod/cpu.stat": "nr_periods 9\nnr_throttled 2\nthrottled_usec 1000000\n",
        },
    )
    assert (read_memory(root).cgroup_limit, read_memory(root).cgroup_usage) == (500, 20)
    assert read_throttling(root) == Throttling(9, 2, 1.0)


def test_a_group_of_the_host_that_is_not_there_leaves_the_top(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/host/only/path\n",
            "sys/fs/cgroup/memory.max": "700\n",
            "sys/fs/cgroup/memory.current": "100\n",
        },
    )
    assert read_memory(root).cgroup_limit == 700


def test_this_machine_can_be_read() -> None:
    memory = read_memory()
    assert 0 < memory.proportional <= memory.resident <= memory.peak
    assert memory.machine_available > 0
