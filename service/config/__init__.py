"""What can be set, and where settings come from."""
