-- Reads pages as fast as the answers come. The URL names the topic's `/diff`; the arguments are the
-- order of the pages, the records stored in the topic and the records of a page:
--   wrk -t1 -c16 -d5s -s test/bench/diff.lua http://127.0.0.1:4000/v0/topics/events/diff -- walk 1000000 1000
--
--   hot     one page in the middle, again and again
--   walk    all pages from the first to the last, then again
--   random  all pages in a random order
--   tail    the last records before the head

local directory = debug.getinfo(1, "S").source:match("^@(.*/)") or ""
dofile(directory .. "report.lua")

local requests, sent = {}, 0

local function positions(order, stored, limit)
  local last = math.max(stored - limit, 0)
  if order == "hot" then return { math.floor(last / 2) } end
  if order == "tail" then return { last } end
  local pages = {}
  for from = 0, last, limit do pages[#pages + 1] = from end
  if order == "random" then
    math.randomseed(1)
    for i = #pages, 2, -1 do
      local j = math.random(i)
      pages[i], pages[j] = pages[j], pages[i]
    end
  end
  return pages
end

function init(args)
  local order, stored, limit = args[1] or "hot", tonumber(args[2] or "1000"), tonumber(args[3] or "1000")
  local headers = { ["Content-Type"] = "application/json" }
  for i, from in ipairs(positions(order, stored, limit)) do
    local body = string.format('{"from_seq":%d,"limit":%d}', from, limit)
    requests[i] = wrk.format("POST", nil, headers, body)
  end
end

function request()
  sent = sent % #requests + 1
  return requests[sent]
end
