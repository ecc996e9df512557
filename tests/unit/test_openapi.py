"""What GET /openapi.json says of the work's signature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.app.openapi import described
from service.app.query import Binding, QueryError
from service.work import data
from tests.work import area, typed


def calls_back(callback: Callable[[], int], times: int = 1) -> None:
    """No query can hold its first argument."""


def parameters(work: Callable[..., Any], **fixed: Any) -> dict[str, tuple[bool, Any]]:
    document = described(Binding(work, **fixed))
    found = document["paths"]["/data"]["get"]["parameters"]
    return {one["name"]: (one.get("required", False), one["schema"].get("type")) for one in found}


def test_each_argument_is_a_parameter() -> None:
    assert parameters(area) == {
        "width": (True, "integer"),
        "height": (False, "number"),
        "more": (False, "object"),
    }


def test_what_is_fixed_is_none() -> None:
    assert parameters(data, units=3) == {}


def test_bounds_and_definitions_are_kept() -> None:
    document = described(Binding(typed))
    schemas = {one["name"]: one["schema"] for one in document["paths"]["/data"]["get"]["parameters"]}
    assert (schemas["part"]["minimum"], schemas["part"]["maximum"]) == (1, 10)
    assert schemas["one"]["enum"] == ["a", "b"]
    name = schemas["shape"]["$ref"].removeprefix("#/components/schemas/")
    assert document["components"]["schemas"][name]["enum"] == ["round", "square"]


def test_the_summary_is_the_first_line_of_the_docstring() -> None:
    assert (
        described(Binding(typed))["paths"]["/data"]["get"]["summary"] == "Takes one of each kind of argument."
    )


def test_what_has_no_schema_is_described_as_anything() -> None:
    assert parameters(calls_back) == {"callback": (True, None), "times": (False, None)}


def test_every_status_of_a_failure_is_there() -> None:
    responses = described(Binding(area))["paths"]["/data"]["get"]["responses"]
    assert set(responses) == {"200", "400", "408", "500", "503", "504"}


def test_bounds_of_an_annotation_hold_for_the_query() -> None:
    with pytest.raises(QueryError, match="part"):
        Binding(typed).arguments({"count": "1", "part": "11"})
