"""Limits of a container, read from files as the kernel shows them: on a machine, in containers, of both versions."""

import pytest

from kernorm.system import container

V2 = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup rw\n"
V1 = (
    "32 31 0:29 {} /sys/fs/cgroup/cpu,cpuacct ro,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {} /sys/fs/cgroup/memory ro,relatime master:3 - cgroup cgroup rw,memory\n"
)
GROUP = "0::/user.slice/job\n"
# What version 1 shows for no limit.
NONE = "9223372036854771712"


@pytest.fixture
def shows(tmp_path, monkeypatch):
    """Lays out what the kernel shows: the text of files below /."""
    monkeypatch.setattr(container, "ROOT", tmp_path)

    def lay(**files):
        for name, text in files.items():
            path = tmp_path / NAMES.get(name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return lay


NAMES = {"group": "proc/self/cgroup", "mounts": "proc/self/mountinfo"}


def found():
    return container.cpu_quota(), container.memory_limit()


def test_nothing_limits_where_there_are_no_control_groups(shows):
    assert found() == (None, None)
    shows(group="", mounts="31 23 0:28 / / rw - ext4 /dev/sda rw\n")
    assert found() == (None, None)


def test_version_2_on_a_machine_has_the_lowest_limit_of_the_group_and_those_above_it(shows):
    shows(group=GROUP, mounts=V2)
    assert found() == (None, None)
    shows(**{"sys/fs/cgroup/user.slice/job/cpu.max": "max 100000\n", "sys/fs/cgroup/user.slice/memory.max": "max\n"})
    assert found() == (None, None)
    shows(**{"sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n", "sys/fs/cgroup/memory.max": "4000000000\n"})
    assert found() == (1.5, 4_000_000_000)
    shows(**{"sys/fs/cgroup/user.slice/job/memory.max": "3000000000\n"})
    assert found() == (1.5, 3_000_000_000)


def test_version_2_in_a_container_with_a_name_space_of_its_own(shows):
    shows(group="0::/\n", mounts=V2)
    shows(**{"sys/fs/cgroup/cpu.max": "200000 100000\n", "sys/fs/cgroup/memory.max": "2000000000\n"})
    assert found() == (2.0, 2_000_000_000)


@pytest.mark.parametrize("group", ["/docker/ab12", "/docker/ab123", "/", "/../other"])
def test_version_1_in_a_container_whose_mount_shows_its_own_group(shows, group):
    shows(
        group=f"4:memory:{group}\n3:cpu,cpuacct:{group}\n1:name=systemd:/\n",
        mounts=V1.format("/docker/ab12", "/docker/ab12"),
    )
    cpu = "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_{}_us"
    shows(**{cpu.format("quota"): "300000\n", cpu.format("period"): "100000\n"})
    shows(**{"sys/fs/cgroup/memory/memory.limit_in_bytes": "1000000000\n"})
    assert found() == (3.0, 1_000_000_000)


def test_version_1_without_limits(shows):
    shows(group="4:memory:/a\n3:cpu,cpuacct:/a\n", mounts=V1.format("/", "/"))
    cpu = "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_{}_us"
    shows(**{cpu.format("quota"): "-1\n", cpu.format("period"): "100000\n"})
    shows(**{"sys/fs/cgroup/memory/a/memory.limit_in_bytes": f"{NONE}\n"})
    assert found() == (None, int(NONE))
