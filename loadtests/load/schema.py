"""The JSON Schema of a run's summary, made from its types: `python -m loadtests.load.schema` writes it.

Knows the two files, for one rate and for several, and writes them when run. The types are the source: a test
fails if a file differs from them.
"""

from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from loadtests.files import write_json
from loadtests.load.results import RunSummary, StepsSummary

PATH: Final = Path(__file__).with_name("summary.schema.json")
STEPS_PATH: Final = Path(__file__).with_name("steps.schema.json")


def summary_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of what `run --json` writes for one rate."""
    return _schema(RunSummary)


def steps_schema() -> dict[str, Any]:
    """Return the schema of what it writes for several rates."""
    return _schema(StepsSummary)


def _schema(kind: type) -> dict[str, Any]:
    schema = TypeAdapter(kind).json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


if __name__ == "__main__":
    write_json(PATH, summary_schema(), indent=2)
    write_json(STEPS_PATH, steps_schema(), indent=2)
