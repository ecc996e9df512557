"""Binds a function to the query of a request: names become arguments, annotations validate them.

Knows signatures and pydantic. Runs nothing: it only makes the arguments for a worker.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NotRequired, Required, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12


class QueryError(ValueError):
    """The query does not fit the function; the message is for the client."""


class Binding:
    """A function whose arguments come from a query, except those that are fixed.

    A parameter without annotation is a string. One without default is required. A name that the function
    does not take is ignored, unless the function takes `**kwargs`.

    Args:
        fixed: arguments that no query can change.

    Raises:
        TypeError: the function has a positional-only parameter, which a query cannot name.
    """

    def __init__(self, function: Callable[..., Any], **fixed: Any) -> None:
        self.function = function
        self._fixed = fixed
        hints = get_type_hints(function, include_extras=True)  # Annotated holds bounds
        fields: dict[str, Any] = {}
        extra = False
        self.parameters = tuple(inspect.signature(function).parameters)
        self._required: list[str] = []
        for name, parameter in inspect.signature(function).parameters.items():
            match parameter.kind:
                case inspect.Parameter.POSITIONAL_ONLY:
                    raise TypeError(f"its parameter {name} is positional-only, and a query has names")
                case inspect.Parameter.VAR_POSITIONAL:
                    continue
                case inspect.Parameter.VAR_KEYWORD:
                    extra = True
                    continue
            if name in fixed:
                continue
            required = parameter.default is inspect.Parameter.empty
            if required:
                self._required.append(name)
            kind = hints.get(name, str)
            fields[name] = Required[kind] if required else NotRequired[kind]
        self._names = tuple(fields)
        self._query: TypeAdapter[Any] | None = None
        if fields or extra:
            # `extra` is left to the model, so that **kwargs get the strings that were sent.
            taken = TypedDict("Query", fields)  # type: ignore[misc]  # made at run time
            taken.__pydantic_config__ = ConfigDict(extra="allow" if extra else "ignore")  # type: ignore[attr-defined]
            self._query = TypeAdapter(taken)

    def trial(self, **instead: Any) -> dict[str, Any] | None:
        """Arguments for a call before there is a request; None if a required one can only come from a query.

        Args:
            instead: values in place of those that are fixed under the same names.
        """
        return (
            None if self._required else self._fixed | {k: v for k, v in instead.items() if k in self._fixed}
        )

    def query_schema(self) -> dict[str, Any]:
        """JSON Schema of the query: an object with a property for each argument; empty if it has none.

        A type without a schema, such as one with a validator of its own, leaves all of them undescribed.
        """
        if self._query is None:
            return {}
        try:
            return self._query.json_schema(ref_template="#/components/schemas/{model}")
        except PydanticInvalidForJsonSchema:
            return {"properties": {name: {} for name in self._names}, "required": self._required}

    def arguments(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The arguments for one call: those of the query, and the fixed ones.

        Raises:
            QueryError: an argument is missing or has the wrong type.
        """
        if self._query is None:
            return self._fixed
        try:
            taken: dict[str, Any] = self._query.validate_python(dict(query))
        except ValidationError as error:
            wrong = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise QueryError("; ".join(wrong)) from error
        return taken | self._fixed
