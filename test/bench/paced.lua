-- One request every so often on each connection, with the time and the latency of each: what other
-- clients notice while the server does something large. Arguments: `append` or `diff`, the
-- milliseconds between two requests of a connection, then the arguments of that load.
--   wrk -t4 -c4 -d60s -s test/bench/paced.lua http://127.0.0.1:4000/v0/topics/events -- append 4 1
--
-- There must be as many threads as connections: each thread has its own Lua state, so in it requests
-- and responses alternate. SIGINT ends the run early and still prints the samples.

local directory = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
local ffi = require("ffi")
ffi.cdef("typedef struct { long sec; long nsec; } clock_time; int clock_gettime(int clock, clock_time *time);")

local time = ffi.new("clock_time")

-- wrk needs up to 0.1 s to end, so only a request that was due longer ago was held up by the server.
local UNANSWERED_MS = 200

-- Milliseconds since the Unix epoch.
local function now()
  ffi.C.clock_gettime(0, time)
  return tonumber(time.sec) * 1e3 + tonumber(time.nsec) / 1e6
end

local threads = {}
local load_request, late, sent_at

-- Global, because `done` asks each thread for them by name. `samples` are pairs of time and latency.
samples = {}
failed = 0
due, interval = nil, nil

function setup(thread)
  threads[#threads + 1] = thread
end

function init(args)
  local paced_request, paced_done = request, done
  interval = tonumber(args[2])
  local rest = {}
  for i = 3, #args do rest[#rest + 1] = args[i] end
  dofile(directory .. args[1] .. ".lua")
  init(rest)
  load_request, request, done = request, paced_request, paced_done
end

-- The milliseconds to wait before the next request. The schedule is fixed; it does not slip with the answers.
function delay()
  local start = now()
  due = due and due + interval or start + math.random() * interval
  late = due < start
  return math.max(0, math.floor(due - start + 0.5))
end

function request()
  sent_at = now()
  return load_request()
end

-- A request that had to wait for the answer before it was due earlier than it was sent.
function response(status)
  local finished = now()
  local from = late and due or sent_at
  samples[#samples + 1] = from
  samples[#samples + 1] = finished - from
  if status >= 300 then failed = failed + 1 end
end

function done(summary)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  local ended = now()
  local texts = {}
  for _, thread in ipairs(threads) do
    local numbers = thread:get("samples")
    broken = broken + thread:get("failed")
    -- What was due and has no answer yet has waited at least until now.
    for missed = thread:get("due") or ended, ended - UNANSWERED_MS, thread:get("interval") do
      numbers[#numbers + 1] = missed
      numbers[#numbers + 1] = ended - missed
    end
    for _, number in ipairs(numbers) do texts[#texts + 1] = string.format("%.3f", number) end
  end
  print(string.format('{"failed":%d,"samples":[%s]}', broken, table.concat(texts, ",")))
end
