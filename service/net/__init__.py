"""The kernel's side of a connection: listening, accepting, the connection limit, TCP and TLS."""
