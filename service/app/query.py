"""Binds a function to the query of a request: names become arguments, annotations are held.

Knows signatures and pydantic. Runs nothing: what it makes are the arguments for a worker.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NotRequired, Required, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12


class QueryError(ValueError):
    """The query is not what the function takes; the message is for the client."""


class Binding:
    """A function whose parameters come from a query, but for those that are fixed.

    A parameter without annotation is a string; one without default must be there; what the function does
    not take is ignored, unless it takes `**` anything.

    Raises:
        TypeError: it has parameters that no query can name.
    """

    def __init__(self, function: Callable[..., Any], **fixed: Any) -> None:
        self.function = function
        self._fixed = fixed
        hints = get_type_hints(function)
        fields: dict[str, Any] = {}
        extra = False
        self.parameters = tuple(inspect.signature(function).parameters)
        self._needs_query = False
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
            self._needs_query |= required
            kind = hints.get(name, str)
            fields[name] = Required[kind] if required else NotRequired[kind]
        self._query: TypeAdapter[Any] | None = None
        if fields or extra:
            # `extra` is the model's, so that **anything arrives as the strings it was sent as.
            taken = TypedDict("Query", fields)  # type: ignore[misc]  # made at run time
            taken.__pydantic_config__ = ConfigDict(extra="allow" if extra else "ignore")  # type: ignore[attr-defined]
            self._query = TypeAdapter(taken)

    def trial(self, **instead: Any) -> dict[str, Any] | None:
        """Arguments to try it with before there is a request; None if only a query can tell them.

        Args:
            instead: replace what is fixed under these names.
        """
        return (
            None
            if self._needs_query
            else self._fixed | {k: v for k, v in instead.items() if k in self._fixed}
        )

    def arguments(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The arguments for one call.

        Raises:
            QueryError: something is missing or has the wrong type.
        """
        if self._query is None:
            return self._fixed
        try:
            taken: dict[str, Any] = self._query.validate_python(dict(query))
        except ValidationError as error:
            said = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise QueryError("; ".join(said)) from error
        return taken | self._fixed
