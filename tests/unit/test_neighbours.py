"""How many cores there are: quotas out of made-up cgroups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loadtests.neighbours import Neighbours, cgroups_of, effective_cores


@pytest.fixture
def cores() -> int:
    return len(os.sched_getaffinity(0))


def group(root: Path, name: str, **files: str) -> None:
    """A cgroup's folder with these files; a dot in a file's name is written as two underscores."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file.replace("__", ".")).write_text(text + "\n")


def test_the_groups_above_us_are_all_found_in_version_2(tmp_path: Path) -> None:
    found = cgroups_of("0::/a/b\n", tmp_path)
    assert found == [tmp_path / "a/b", tmp_path / "a", tmp_path]


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    assert cgroups_of("0::/\n", tmp_path) == [tmp_path]


def test_in_version_1_only_the_group_of_the_cpu_controller_counts(tmp_path: Path) -> None:
    listing = "4:memory:/x\n3:cpu,cpuacct:/docker/1\n2:cpuset:/y\n1:name=systemd:/z\n"
    root = tmp_path / "cpu,cpuacct"
    assert cgroups_of(listing, tmp_path) == [root / "docker/1", root / "docker", root]


@pytest.mark.parametrize(
    ("quotas", "share"),
    [
        ({"a/b": "50000 100000"}, 0.5),
        ({"a/b": "max 100000"}, None),
        ({"a/b": "max 100000", "a": "25000 100000"}, 0.25),  # of the group above
        ({"a/b": "25000 100000", "a": "50000 100000"}, 0.25),  # the tighter one binds
        ({"a/b": "50000 100000", "a": "25000 50000", "": "70000 100000"}, 0.5),
        ({"a/b": "10000000 100000"}, None),  # more than there are
        ({"a/b": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_tightest_quota_of_version_2_binds(
    tmp_path: Path, cores: int, quotas: dict[str, str], share: float | None
) -> None:
    for name, text in quotas.items():
        group(tmp_path, name, cpu__max=text)
    assert effective_cores(cgroups_of("0::/a/b\n", tmp_path)) == (cores if share is None else share)


@pytest.mark.parametrize(("quota", "share"), [("40000", 0.4), ("-1", None)])
def test_a_quota_of_version_1_binds(tmp_path: Path, cores: int, quota: str, share: float | None) -> None:
    group(tmp_path / "cpu", "a", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    assert effective_cores(cgroups_of("3:cpu:/a/b\n", tmp_path)) == (cores if share is None else share)


def test_cores_outside_the_affinity_mask_do_not_count() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert effective_cores([]) == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_throttling_by_any_group_above_us_is_seen(tmp_path: Path) -> None:
    group(tmp_path, "a/b", cpu__stat="usage_usec 5\nthrottled_usec 0")
    group(tmp_path, "a", cpu__stat="nr_throttled 3\nthrottled_usec 1500000")
    neighbours = Neighbours(cgroups_of("0::/a/b\n", tmp_path))
    assert neighbours.read().throttled_seconds == 1.5
    group(tmp_path, "a/b", cpu__stat="throttled_usec 250000")
    assert neighbours.read().throttled_seconds == 1.75


def test_throttling_in_version_1_counts_nanoseconds(tmp_path: Path) -> None:
    group(tmp_path / "cpu", "a", cpu__stat="nr_periods 9\nnr_throttled 3\nthrottled_time 2000000000")
    assert Neighbours(cgroups_of("3:cpu:/a\n", tmp_path)).read().throttled_seconds == 2.0
