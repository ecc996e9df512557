// k6 run -e URL=http://127.0.0.1:8080/data loadtests/scripts/k6.js
//
// Tells how long clients wait under the loads of the published experiment: it starts a request when one is due,
// whether or not earlier ones are answered (an open loop). It cannot do so without limit: each request in flight
// occupies a VU, and a request without a free VU counts in dropped_iterations and is never measured. If that is not
// 0, ignore the latencies.
//
// The tests of this project do not run k6, which is not available there: node checks the syntax and the phases below.

import http from "k6/http";
import { check } from "k6";

// Requests per second, 20 seconds each: the 22 phases of the post.
const RATES = [20, 60, 100, 120, 160, 180, 200];
for (let rate = 210; rate <= 350; rate += 10) RATES.push(rate);
const PHASE_SECONDS = 20;
const TIMEOUT_SECONDS = 10;

// One scenario per phase: k6 then tags every figure with its phase, and the queue of one does not count as the next's.
const scenarios = {};
RATES.forEach((rate, index) => {
  scenarios[`phase_${String(index + 1).padStart(2, "0")}_${rate}_per_second`] = {
    executor: "constant-arrival-rate",
    rate,
    timeUnit: "1s",
    startTime: `${index * PHASE_SECONDS}s`,
    duration: `${PHASE_SECONDS}s`,
    gracefulStop: `${TIMEOUT_SECONDS}s`,
    // By Little's law a service that answers within a second needs `rate` of them, and one in which every
    // request times out needs rate x time-out.
    preAllocatedVUs: rate,
    maxVUs: rate * TIMEOUT_SECONDS,
  };
});

export const options = {
  scenarios,
  // One connection per request, with "Connection: close".
  noConnectionReuse: true,
  discardResponseBodies: true,
  // Not goals: k6 sums up a phase separately only if a threshold names it.
  thresholds: Object.fromEntries(
    Object.keys(scenarios).map((name) => [`http_req_duration{scenario:${name}}`, ["p(99)>=0"]]),
  ),
  summaryTrendStats: ["med", "p(90)", "p(99)", "max", "count"],
};

export default function () {
  const answer = http.get(__ENV.URL || "http://127.0.0.1:8080/data", { timeout: `${TIMEOUT_SECONDS}s` });
  check(answer, { "answered 200": (a) => a.status === 200 });
}
