-- The closing line of a measurement: one JSON object for the program that started wrk.
-- Latencies are in milliseconds. wrk corrects them for coordinated omission: a stall also counts
-- for the requests that it kept from being sent.

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    '{"calls":%d,"seconds":%.6f,"bytes":%d,"p50Ms":%.4f,"p99Ms":%.4f,"maxMs":%.4f,"failed":%d}',
    summary.requests, summary.duration / 1e6, summary.bytes,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
