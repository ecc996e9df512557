"""How many requests a second a service can take, and how many connections a second the generator can make."""
