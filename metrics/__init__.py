"""What the service tells Prometheus: the only package that knows prometheus_client.

    catalogue.py    every metric in one table: name, type, help, labels, the question it answers
    instruments.py  the `Metrics` object that the service is given and calls
    read_counter.py a counter whose value is asked for and not told
    slots.py        where each of several processes keeps its connection counts; its successor takes them over
    shared.py       the same instruments in files, and one exposition for all processes
    admin.py        /metrics, /healthz and /readyz on a port and thread of their own
    admin_server.py the server of that port, which no client can hold up
    places.py       how many connections it holds, for how long, and which one makes room
    exposition.py   reads an exposition back into numbers, for programs that watch the service

A leaf: it imports nothing of the service, which is given a `Metrics` object.
"""
