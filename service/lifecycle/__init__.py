"""A service from start to exit code: its states, its parts put together, its control."""
