#!/bin/sh
# loadtests/scripts/hey.sh -n 400 -c 8 http://127.0.0.1:8080/data
#
# Tells how answer times are distributed when a fixed number of clients never pauses; -o csv keeps the status and time
# of every answer. Cannot tell what a given load does: each worker sends only after its last answer (a closed
# loop), and -q only adds pauses. Rounds -n down to a multiple of -c.
set -eu
command -v hey >/dev/null || { echo "hey.sh: hey is not installed (Debian: apt install hey)" >&2; exit 127; }
# Without keep-alive each request gets a connection of its own, with "Connection: close".
exec hey -disable-keepalive "$@"
