"""Logging: the format of lines, and how many go out."""
