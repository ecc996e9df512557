"""What the image and the stack are made of: pinned, hashed and bounded."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.support import ROOT

IMAGE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE = (ROOT / "docker-compose.yml").read_text("utf-8")
REQUIREMENTS = (ROOT / "deploy/requirements.txt").read_text("utf-8")
WITH_EXECUTORS = (ROOT / "deploy/requirements-executors.txt").read_text("utf-8")
images = pytest.mark.parametrize("requirements", [REQUIREMENTS, WITH_EXECUTORS], ids=["plain", "executors"])
PIN = re.compile(r"^([\w.-]+)==([\w.]+)", re.MULTILINE)
SERVICES = dict(
    re.findall(r"^  (\w+):\n((?:    .*\n|\n|  +#.*\n)+)", COMPOSE.partition("\nservices:\n")[2], re.MULTILINE)
)


def normal(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    return {normal(name): version for name, version in PIN.findall(text)}


@images
def test_the_image_holds_the_versions_that_are_tested(requirements: str) -> None:
    tested = pins((ROOT / "constraints.txt").read_text("utf-8"))
    assert {name: tested[name] for name in pins(requirements)} == pins(requirements)


def test_the_image_holds_all_that_service_and_load_tests_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = (*project["dependencies"], *project["optional-dependencies"]["loadtests"])
    assert {normal(re.split(r"[><=]", one)[0]) for one in wanted} <= pins(REQUIREMENTS).keys()


def test_the_image_with_engines_holds_those_and_all_of_the_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    engines = {normal(re.split(r"[><=]", one)[0]) for one in project["optional-dependencies"]["executors"]}
    assert pins(REQUIREMENTS).items() <= pins(WITH_EXECUTORS).items()
    assert engines <= pins(WITH_EXECUTORS).keys()
    assert not engines & pins(REQUIREMENTS).keys(), "the image that most use needs none of them"


@images
def test_each_package_of_the_image_has_its_hashes_and_no_address(requirements: str) -> None:
    entries = re.split(r"^(?=[\w.-]+==)", requirements, flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins(requirements))
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry) for entry in entries)
    assert "://" not in requirements
    assert "index" not in requirements


def test_the_image_is_built_from_hashes_on_bases_of_one_release() -> None:
    bases = re.findall(r"^FROM (\S+)", IMAGE, re.MULTILINE)
    assert bases
    assert all(re.fullmatch(r"python:\d\.\d+-slim-\w+", base) for base in bases), bases
    installs = re.findall(r"pip install(?:.*\\\n)*.*", IMAGE)
    assert installs
    assert all("--require-hashes" in install for install in installs)


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_in_the_stack_takes_the_whole_machine(name: str) -> None:
    confined = re.search(r"^x-confined: &confined\n((?:  .*\n)+)", COMPOSE, re.MULTILINE)
    assert confined
    assert re.search(r"<<: (\[\*(?:image|engines), \*confined\]|\*confined)\n", SERVICES[name])
    for bound in ("mem_limit: ", "pids_limit: ", "max-size: ", "max-file: "):
        assert bound in confined[1]
    long_lived = name != "loadtests"
    assert ("    restart: unless-stopped\n" in SERVICES[name]) is long_lived


def test_the_stack_is_what_is_tested_here() -> None:
    assert set(SERVICES) == {
        *("service", "prometheus", "alertmanager", "grafana", "loadtests"),
        *("replica", "haproxy", "dask", "scheduler", "worker"),
    }


def test_images_that_are_not_ours_are_pinned() -> None:
    images = re.findall(r"^    image: (\S+)$", COMPOSE, re.MULTILINE)
    assert images
    assert [one for one in images if not re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", one)] == []
