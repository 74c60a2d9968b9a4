"""What a process may use of its machine, from the files in which Linux says so."""

import pytest

from vllm_core.runner import host

GiB = 1 << 30


@pytest.fixture
def machine(tmp_path):
    """``machine(path="text", ...)`` writes files below a root; returns it."""

    def make(files):
        for name, text in {"proc/meminfo": "MemTotal: 9\nMemAvailable:    8388608 kB\n", **files}.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path

    return make


def test_without_control_groups_there_is_no_limit(machine):
    root = machine({})
    assert host.core_limit(root) is None
    assert host.memory_limit(root) is None
    assert host.usable_memory(root) == host.total_memory()
    assert host.usable_cores(root) == host.cores()
    assert host.free_memory(root) == 8 * GiB


def test_the_tightest_group_on_the_way_up_counts(machine):
    root = machine(
        {
            "proc/self/cgroup": "0::/pod/container\n",
            "sys/fs/cgroup/pod/container/memory.max": "max\n",
            "sys/fs/cgroup/pod/container/cpu.max": "250000 100000\n",
            "sys/fs/cgroup/pod/memory.max": f"{2 * GiB}\n",
            "sys/fs/cgroup/pod/memory.current": f"{GiB}\n",
            "sys/fs/cgroup/pod/memory.stat": f"anon 5\ninactive_file {GiB // 4}\n",
            "sys/fs/cgroup/pod/cpu.max": "max 100000\n",
        }
    )
    assert host.core_limit(root) == 2.5
    assert host.memory_limit(root) == 2 * GiB
    assert host.usable_memory(root) == min(2 * GiB, host.total_memory())
    assert host.free_memory(root) == GiB + GiB // 4  # files nobody reads give way


def test_a_containers_own_group_is_found_at_the_top(machine):
    """Its path in /proc is the host's, and not there."""
    root = machine({"proc/self/cgroup": "0::/../host/path\n", "sys/fs/cgroup/memory.max": "1048576"})
    assert host.memory_limit(root) == 1048576


def test_version_1_has_a_folder_for_each_controller_and_a_huge_number_for_no_limit(machine):
    root = machine(
        {
            "proc/self/cgroup": "5:memory:/a\n1:cpu,cpuacct:/a\n",
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GiB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{2 * GiB}\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        }
    )
    assert host.memory_limit(root) == GiB
    assert host.free_memory(root) == 0
    assert host.core_limit(root) == 0.5
    assert host.usable_cores(root) == 1


@pytest.mark.parametrize("line", ["flags\t\t: fpu avx2", "Features\t: fpu avx2"])
def test_flags_are_read_as_both_kinds_of_processors_write_them(machine, line):
    assert host.cpu_flags(machine({"proc/cpuinfo": f"processor: 0\n{line}\n"})) == {"fpu", "avx2"}
