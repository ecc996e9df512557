"""A service from start to exit code: its states, its parts and how they stop, what an operator orders."""
