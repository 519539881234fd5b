-- Follows lag.lua. KEYS: the lease, where the stream's name is kept, the heartbeat. ARGV: the holder; the milliseconds
-- of the lease and of the heartbeat; a name for the stream if it has none.
-- Renews the heartbeat, and takes or renews the lease. Returns 1 if the holder has it, else 0; the stream's name,
-- false if it has none; and the lag.

-- A Redis that is full does not set a key. Then nobody can take the lease, and only a consumer can free memory.
local function set(...)
    local answer = redis.pcall('SET', ...)
    if type(answer) == 'table' and answer.err and not string.find(answer.err, 'OOM', 1, true) then
        error(answer.err)
    end
end

if redis.call('PEXPIRE', KEYS[3], ARGV[3]) == 0 then
    set(KEYS[3], '', 'PX', ARGV[3])
end
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
    return {0, false, lag(KEYS[2])}
end
if holder then
    redis.call('PEXPIRE', KEYS[1], ARGV[2]) -- which a Redis that is full does, too
else
    set(KEYS[1], ARGV[1], 'PX', ARGV[2])
end
if redis.call('EXISTS', KEYS[2]) == 0 then
    set(KEYS[2], ARGV[4]) -- so that the first click is waited for
end
return {1, redis.call('GET', KEYS[2]), lag(KEYS[2])}
