-- What wrk sends, and what it says of it. Everything comes through the environment, since only `init` gets
-- arguments: BENCH_PATHS (a file, one path per line), BENCH_BODY (a file), BENCH_POST, BENCH_EVERY, BENCH_FIRST.
-- A run of one path has no `request` function at all, and costs wrk as little as it can.

local paths_file = os.getenv("BENCH_PATHS")
local every = tonumber(os.getenv("BENCH_EVERY") or "0")
local post, gets, threads = nil, {}, 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

local function read_all(name)
  local file = assert(io.open(name, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

function init(args)
  if every > 0 then
    local headers = { ["Host"] = wrk.headers["Host"], ["Content-Type"] = "application/json" }
    post = wrk.format("POST", os.getenv("BENCH_POST"), headers, read_all(os.getenv("BENCH_BODY")))
  end
  if paths_file then
    local known = {}
    for path in io.lines(paths_file) do
      known[path] = known[path] or wrk.format("GET", path)
      gets[#gets + 1] = known[path]
    end
  end
end

if paths_file or every > 0 then
  local sent, at = 0, nil
  function request()
    sent = sent + 1
    if every > 0 and sent % every == 0 then return post end
    if not at then at = tonumber(os.getenv("BENCH_FIRST") or "0") + number * 7919 end
    at = at + 1
    return gets[at % #gets + 1]
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "us": %d, "p50": %d, "p99": %d, "p999": %d, "errors": ' ..
    '{"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    errors.connect, errors.read, errors.write, errors.timeout, errors.status))
end
