"""What handlers see: the offload, `/data`, the middleware, and how work and applications are loaded."""
