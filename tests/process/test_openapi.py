"""The service does what its OpenAPI document says: schemathesis makes requests from it, and judges."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.child import service
from tests.support.tools import run

LENIENT = ("--exclude-checks", "negative_data_rejection")
"""A query holds text: pydantic reads "on" as true and "1e3" as a number, and a schema cannot say so."""


@pytest.mark.parametrize(
    ("work", "flags"),
    [("tests.work:area", ()), ("tests.work:typed", LENIENT), ("service.work:data", ())],
)
def test_no_answer_is_another_than_the_document_says(
    tmp_path: Path, work: str, flags: tuple[str, ...]
) -> None:
    with service(tmp_path / "log", "--work", work, "--workers", "1") as child:
        address, _ = child.ready()
        schemathesis = str(Path(sys.executable).with_name("schemathesis"))
        command = [schemathesis, "run", f"{address}/openapi.json", "--max-examples", "40", "--seed", "1"]
        code, said = run([*command, "--no-color", *flags], tmp_path, 100, cwd=tmp_path)
        assert code == 0, said
        assert "No issues found" in said
        assert child.end() == 0
