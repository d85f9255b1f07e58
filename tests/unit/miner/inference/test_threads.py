"""What the machine allows, on small trees of /proc and /sys."""

from pathlib import Path

import pytest

from detectors.base import RunOptions
from detectors.machine import allowed_cores, cpu_quota
from miner.inference.plan import split_cores


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        pytest.param({}, None, id="no cgroups at all"),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5, id="v2, a container's top"
        ),
        pytest.param({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None, id="v2, unlimited"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/system.slice/miner.service\n",
                "sys/fs/cgroup/system.slice/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/system.slice/miner.service/cpu.max": "max 100000\n",
            },
            2.0,
            id="v2, the limit is a parent's",
        ),
        pytest.param(
            {"proc/self/cgroup": "0::/docker/of-the-host\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"},
            0.5,
            id="v2, the path is the host's",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/a\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
            },
            3.0,
            id="v1",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "3:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
            id="v1, unlimited",
        ),
    ],
)
def test_the_quota_is_read_from_either_version(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(tree(tmp_path, files)) == quota


@pytest.mark.parametrize(("quota", "cores"), [("150000", 1), ("50000", 1), ("400000", 4), ("6400000", 64)])
def test_a_quota_on_a_big_host_is_rounded_down(tmp_path: Path, quota: str, cores: int) -> None:
    root = tree(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota} 100000\n"})
    assert allowed_cores(root, affinity=64) == cores


def test_the_mask_counts_where_it_is_smaller(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "800000 100000\n"})
    assert allowed_cores(root, affinity=2) == 2


@pytest.mark.parametrize(
    ("cores", "slots", "threads", "plan"),
    [
        (4, 0, 0, RunOptions(1, 4)),
        (1, 0, 0, RunOptions(1, 1)),
        (4, 2, 0, RunOptions(2, 2)),
        (4, 0, 1, RunOptions(4, 1)),
        (4, 3, 0, RunOptions(3, 1)),
        (2, 0, 4, RunOptions(1, 4)),
        (4, 2, 4, RunOptions(2, 4)),
    ],
)
def test_the_plan_fills_the_cores_and_keeps_what_is_given(
    cores: int, slots: int, threads: int, plan: RunOptions
) -> None:
    assert split_cores(cores, slots, threads) == plan
    if not (slots and threads) and threads <= cores:
        assert plan.slots * plan.threads <= cores


def test_a_plan_reads_well() -> None:
    assert str(RunOptions(1, 2)) == "1 slot × 2 threads"
