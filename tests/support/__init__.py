"""What several tests or proofs use: children, servers, tools, waiting, data made by hand. Imports no test."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
