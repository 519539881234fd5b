-- Returns the id of the oldest entry that is not counted yet (false if there is none), the number of entries, and the
-- time of this Redis in seconds. `name_key` is where the stream's name is kept.
local function lag(name_key)
    local now = tonumber(redis.call('TIME')[1])
    local stream = redis.call('GET', name_key)
    if not stream then
        return {false, 0, now}
    end
    local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    return {first and first[1] or false, redis.call('XLEN', stream), now}
end
