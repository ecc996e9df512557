-- wrk -t2 -c8 -d5s --latency -s loadtests/scripts/wrk.lua http://127.0.0.1:8080/data
--
-- Tells how much the service answers at most, with few clients that never pause. Cannot tell how long clients
-- wait under a given load: each connection sends only after its last answer (a closed loop), so a slow service
-- gets less load and the waits that others would have had are never measured.

wrk.headers["Connection"] = "close"

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

-- Each thread has a Lua state of its own; its globals are what `thread:get` reads.
sent = 0

function request()
  sent = sent + 1
  return wrk.format()
end

-- The books, for comparing with the server's counters:
--   sent      requests written. wrk builds one on its first thread before the start, to look at it.
--   answered  whole answers read.
--   opened    connections: one for each slot (-c), and a new one after each answer. What wrk cuts off at its end
--             is the difference: opened - answered = -c, and of those, sent - answered had sent a request.
function done(summary, latency, requests)
  local total = -1
  local slots = 0
  for _, thread in ipairs(threads) do
    total = total + thread:get("sent")
  end
  local errors = summary.errors
  io.write(string.format(
    "books: sent %d answered %d not2xx %d connect %d read %d write %d timeout %d\n",
    total, summary.requests, errors.status, errors.connect, errors.read, errors.write, errors.timeout))
end
