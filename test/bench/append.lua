-- Appends as fast as the answers come. The URL names the topic, the argument the records in a batch:
--   wrk -t1 -c16 -d5s -s test/bench/append.lua http://127.0.0.1:4000/v0/topics/events -- 100

local directory = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
dofile(directory .. "report.lua")

local VARIANTS = 64
local requests, sent = {}, 0

-- Every id has six digits, so all requests of a load have the same length.
local function batch(records, first)
  local items = {}
  for i = 1, records do
    items[i] = string.format('{"data":{"id":%d,"kind":"click","v":1}}', 100000 + (first + i) % 900000)
  end
  return '{"records":[' .. table.concat(items, ",") .. "]}"
end

function init(args)
  local records = tonumber(args[1] or "1")
  local headers = { ["Content-Type"] = "application/json" }
  for variant = 1, VARIANTS do
    requests[variant] = wrk.format("POST", nil, headers, batch(records, variant * records))
  end
end

function request()
  sent = sent % VARIANTS + 1
  return requests[sent]
end
