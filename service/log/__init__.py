"""What log lines look like, and how many go out."""
