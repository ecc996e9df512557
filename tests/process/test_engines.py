"""What every executor must do for the service, short form of `make executors`; each function asserts it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.proofs import executors
from tests.support.child import service
from tests.support.engines import Cluster, cluster

PACKAGES = {"loky": "loky", "dask": "distributed"}


def need(name: str) -> None:
    if name in PACKAGES and find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed (the extra `executors`)")


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Cluster]]:
    """The one cluster of all tests, started for the first that needs it."""
    need("dask")
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield [made]


@pytest.fixture
def dask(name: str, request: pytest.FixtureRequest) -> Cluster | None:
    if name != "dask":
        return None
    (made,) = request.getfixturevalue("clusters")
    assert isinstance(made, Cluster)
    return made


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        (name, asked)
        for name in executors.FACTORIES
        for asked in executors.CELLS
        if (name, asked) not in executors.CANNOT
    ],
)
def test_every_executor_keeps_the_contract(
    name: str, asked: str, tmp_path: Path, dask: Cluster | None
) -> None:
    need(name)
    assert executors.cell(name, asked, tmp_path / "run", dask)


@pytest.mark.parametrize("tasks", [("a", "b"), ()], ids=["busy", "idle"])
def test_a_cluster_that_goes_and_comes_back_is_told_and_used(tmp_path: Path, tasks: tuple[str, ...]) -> None:
    need("dask")
    (tmp_path / "cluster").mkdir()
    with (
        cluster(tmp_path / "cluster") as made,
        executors.bench("dask", tmp_path / "run", made, *executors.LOST) as on,
    ):
        executors.lost(on, made, *tasks)


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (
            "no.such:thing",
            "the executor no.such:thing cannot be used: ModuleNotFoundError: No module named 'no'",
        ),
        ("tests.support.engines:nothing", "has no attribute 'nothing'"),
        (
            "tests.support.engines:not_callable",
            "the executor tests.support.engines:not_callable cannot be used: "
            "TypeError: it is int and cannot be called",
        ),
        ("tests.support.engines:number", "the factory returned int, which is no executor"),
        ("tests.support.engines:unreachable", "ConnectionRefusedError('nothing listens there')"),
        ("service.offload.engines:dask", "DASK_SCHEDULER_ADDRESS does not name a scheduler"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_exit_code_2(tmp_path: Path, factory: str, says: str) -> None:
    if factory.endswith("dask"):
        need("dask")
    flags = ("--offload", "executor", "--executor", factory, "--work-units", "1")
    with service(tmp_path / "log", *flags, before=("env", "-u", "DASK_SCHEDULER_ADDRESS")) as child:
        assert child.process.wait(30) == 2
    (line,) = (text for text in (tmp_path / "log").read_text().splitlines() if text.startswith("offloop: "))
    assert says in line
