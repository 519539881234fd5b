-- KEYS: where the stream's name is kept.
-- Returns the id of the oldest entry that is not counted yet (false if there is none), the number of entries, and the
-- time of this Redis in seconds.
local now = tonumber(redis.call('TIME')[1])
local stream = redis.call('GET', KEYS[1])
if not stream then
    return {false, 0, now}
end
local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
return {first and first[1] or false, redis.call('XLEN', stream), now}
