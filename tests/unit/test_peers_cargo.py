"""The design in Rust: what becomes of it where it cannot be built."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from loadtests.peers import cargo, race
from loadtests.peers.plan import IN_RUST, OURS


def test_without_cargo_the_reason_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(cargo.NotBuiltError, match=r"cargo is not installed .*librust-tokio-dev"):
        cargo.build(tmp_path)


def test_a_cache_that_cannot_be_written_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "cargo")
    (tmp_path / "file").touch()
    with pytest.raises(cargo.NotBuiltError, match=r"cache: Not a directory"):
        cargo.build(tmp_path / "file" / "cache")


def test_each_version_of_the_source_has_a_program_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cargo.program(tmp_path)
    assert cargo.program(tmp_path) == first
    shutil.copytree(cargo.SOURCE, tmp_path / "hyper")
    monkeypatch.setattr(cargo, "SOURCE", tmp_path / "hyper")
    assert cargo.program(tmp_path) == first
    with (tmp_path / "hyper/src/main.rs").open("a") as source:
        source.write("// changed\n")
    assert cargo.program(tmp_path) != first


def test_what_cannot_be_built_is_left_out_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(_: Path) -> Path:
        raise cargo.NotBuiltError("there is no compiler")

    monkeypatch.setattr(cargo, "build", build)
    console = Console(file=io.StringIO())
    assert race.not_built((OURS, *IN_RUST), tmp_path, console) == dict.fromkeys(
        IN_RUST, "there is no compiler"
    )
    asked: list[Path] = []
    monkeypatch.setattr(cargo, "build", asked.append)
    assert race.not_built((OURS, "pool"), tmp_path, console) == {}
    assert asked == []
    assert race.not_built((OURS, *IN_RUST), tmp_path, console) == {}
    assert asked == [tmp_path]
