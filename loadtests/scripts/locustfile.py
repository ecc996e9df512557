# locust -f loadtests/scripts/locustfile.py --headless -u 20 -r 20 -t 10s -s 10 -H http://127.0.0.1:8080
#
# Tells how long users wait that do one thing after the other, here 10 requests a second each. To be extended:
# sessions, several pages, several machines. Cannot tell what a given load does: a user that waits sends
# nothing, so a service that stalls gets no more requests than there are users (a closed loop). The response
# time begins before name resolution and includes connecting.
"""One request per connection with Locust."""

import random
import time

from locust import FastHttpUser, constant_throughput, task

RATE = 10  # requests per second of each user, as long as answers come in time


class Client(FastHttpUser):
    """A user with a new connection for each request."""

    wait_time = constant_throughput(RATE)

    def on_start(self) -> None:
        """Begin at a random moment: users that are spawned together would send together for ever."""
        time.sleep(random.random() / RATE)

    @task
    def data(self) -> None:
        """GET /data; the service closes behind its answer, and so does the client."""
        self.client.get("/data", headers={"Connection": "close"})
