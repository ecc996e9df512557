-- wrk -t2 -c8 -d5s --latency -s loadtests/scripts/wrk.lua http://127.0.0.1:8080/data
--
-- Tells how much the service answers at most, with few clients that never pause. Cannot tell how long clients
-- wait under a given load: each connection sends only after its last answer (a closed loop), so a slow service
-- gets less load, and the waits of the requests that are not sent are never measured.

wrk.headers["Connection"] = "close"

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

-- Each thread has its own Lua state, whose globals `thread:get` reads.
built = 0

function request()
  built = built + 1
  return wrk.format()
end

-- The ledger, to be compared with the server's counters:
--   sent      requests written: one less than were built, because wrk builds one before it starts.
--   answered  complete answers read. wrk cut off the other requests when it ended.
-- wrk opens one connection to try the address, one for each slot (-c), and a new one after each answer.
function done(summary)
  local sent = -1
  for _, thread in ipairs(threads) do
    sent = sent + thread:get("built")
  end
  local errors = summary.errors
  io.write(string.format("books: sent %d answered %d failed %d\n", sent, summary.requests,
    errors.status + errors.connect + errors.read + errors.write))
end
