"""The client's side of a connection: HTTP, deadlines, early rejects, and its orderly end."""
