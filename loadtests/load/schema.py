"""The JSON Schema of a run's summary, made from its types: `python -m loadtests.load.schema` writes it.

Knows where the schema stands. Touches that one file, when run. The types are the source: a test fails
when the file says something else.
"""

from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from loadtests.files import write_json
from loadtests.load.results import RunSummary

PATH: Final = Path(__file__).with_name("summary.schema.json")


def summary_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of what `run --json` writes."""
    schema = TypeAdapter(RunSummary).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


if __name__ == "__main__":
    write_json(PATH, summary_schema(), indent=2)
