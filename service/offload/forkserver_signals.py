"""Makes the fork server outlive a SIGTERM or SIGHUP to the whole group, as its workers do.

Preloaded there and imported nowhere else: importing is what it does. A fork server that dies takes
its workers' exit codes with it, and the pool then believes that they died.
"""

import signal

for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
