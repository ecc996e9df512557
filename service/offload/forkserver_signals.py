"""Makes the fork server survive a SIGTERM or SIGHUP to the whole process group, as its workers do.

Preloaded there and imported nowhere else: importing it is all it takes. A fork server that dies takes
its workers' exit codes with it, and the executor then believes that they died.
"""

import signal

for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
