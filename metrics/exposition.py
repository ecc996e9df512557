"""Reads a text exposition back into numbers, for programs that watch the service from outside.

It is here and not in the load tests because prometheus_client has one owner. Pure: text in, numbers out.
"""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def parse(text: str) -> dict[str, float]:
    """Samples of an exposition by name, with labels as in `name{a=x,b=y}` (sorted, unquoted)."""
    values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            values[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return values


def total(values: dict[str, float], name: str, **labels: str) -> float:
    """Sum of all samples of `name` that have these labels; 0.0 if there is none."""
    wanted = {f"{label}={value}" for label, value in labels.items()}
    found = 0.0
    for key, value in values.items():
        family, _, rest = key.partition("{")
        if family == name and wanted.issubset(rest.removesuffix("}").split(",")):
            found += value
    return found
