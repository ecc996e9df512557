"""Makes the fork server outlive a SIGTERM to the whole group, as its workers do.

Preloaded there and imported nowhere else: importing is what it does. A fork server that dies takes
its workers' exit codes with it, and the pool then believes that they died.
"""

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
