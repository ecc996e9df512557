"""Describes `GET /data` and health in OpenAPI 3.1, from the signature of the work. Pure.

Knows the binding of the query (query.py), and which failures the middleware answers with which status.
"""

from __future__ import annotations

import inspect
from typing import Any, Final

from service import __version__
from service.app.query import Binding

TEXT: Final = {"text/plain": {"schema": {"type": "string"}}}
RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds after which it is worth while to ask again.",
        "schema": {"type": "integer", "minimum": 1},
    }
}

FAILURES: Final[dict[str, dict[str, Any]]] = {
    "400": {"description": "The query does not fit the function.", "content": TEXT},
    "408": {"description": "The request did not come in time.", "content": TEXT},
    "500": {"description": "The work failed, or has killed its workers.", "content": TEXT},
    "503": {
        "description": "It cannot be answered in time: too many wait.",
        "headers": RETRY_AFTER,
        "content": TEXT,
    },
    "504": {"description": "The deadline passed.", "content": TEXT},
}


def described(work: Binding) -> dict[str, Any]:
    """The OpenAPI document of a service with this work."""
    said = inspect.getdoc(work.function) or ""
    parameters, definitions = _parameters(work)
    data = {
        "summary": said.partition("\n")[0] or work.function.__name__,
        "operationId": "data",
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "What the function returned.",
                "content": {"application/json": {"schema": {}}},
            },
            **FAILURES,
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "offloop", "version": __version__},
        "paths": {
            "/data": {"get": data},
            "/healthz": {"get": _probe("healthz", "The event loop turns.")},
            "/readyz": {
                "get": _probe("readyz", "New clients are welcome.", **{"503": "They are not; the reason."})
            },
        },
        **({"components": {"schemas": definitions}} if definitions else {}),
    }


def _parameters(work: Binding) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The parameters of the query, and the schemas that they refer to."""
    schema = work.query_schema()
    required = schema.get("required", ())
    found = [
        {"name": name, "in": "query", "required": name in required, "schema": one}
        for name, one in schema.get("properties", {}).items()
    ]
    if schema.get("additionalProperties"):
        more = {"type": "object", "additionalProperties": {"type": "string"}}
        found.append({"name": "more", "in": "query", "style": "form", "explode": True, "schema": more})
    return found, schema.get("$defs", {})


def _probe(name: str, meaning: str, **others: str) -> dict[str, Any]:
    responses = {
        status: {"description": text, "content": TEXT} for status, text in {"200": meaning, **others}.items()
    }
    return {"summary": meaning, "operationId": name, "responses": responses}
