// k6 run -e URL=http://127.0.0.1:8080/data loadtests/scripts/k6.js
//
// Tells how long clients wait under the loads of the published experiment: it starts a request when one is due,
// whatever the answers do (an open loop). It cannot go on doing so without end: each request in flight occupies a VU,
// and what finds none free is counted in dropped_iterations and never measured. If that is not 0, read no latency.
//
// Not run in this project's tests, where k6 is not to be had: node checks the syntax and the phases below.

import http from "k6/http";
import { check } from "k6";

// Requests per second, 20 seconds each: the 22 phases of the post.
const RATES = [20, 60, 100, 120, 160, 180, 200];
for (let rate = 210; rate <= 350; rate += 10) RATES.push(rate);
const PHASE_SECONDS = 20;
const TIMEOUT_SECONDS = 10;

// One scenario per phase: k6 then tags every figure with it, and one phase's queue is not taken for the next one's.
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
  // Not a goal to reach: naming a phase in a threshold is how k6 is asked to sum it up by itself.
  thresholds: Object.fromEntries(
    Object.keys(scenarios).map((name) => [`http_req_duration{scenario:${name}}`, ["p(99)>=0"]]),
  ),
  summaryTrendStats: ["med", "p(90)", "p(99)", "max", "count"],
};

export default function () {
  const answer = http.get(__ENV.URL || "http://127.0.0.1:8080/data", { timeout: `${TIMEOUT_SECONDS}s` });
  check(answer, { "answered 200": (a) => a.status === 200 });
}
