-- KEYS: where the stream's name is kept, where this worker's last number is kept.
-- ARGV: a name for the stream if it has none yet, the entry's number, entries at most, the entry, its sources, and the
-- name by which logs call it.
-- Adds the entry unless it is there already, so that a worker whose reply was lost can send it again. The name is
-- part of the data: a Redis that has lost its data gets a stream with another name, and so with fresh cursors.
local stream = redis.call('GET', KEYS[1])
if not stream then
    stream = ARGV[1]
    redis.call('SET', KEYS[1], stream)
end
if tonumber(ARGV[2]) <= tonumber(redis.call('GET', KEYS[2]) or '0') then
    return 'again'
end
if redis.call('XLEN', stream) >= tonumber(ARGV[3]) then
    return 'full'
end
local id = redis.call('XADD', stream, '*', 'clicks', ARGV[4], 'sources', ARGV[5], 'shipment', ARGV[6])
-- The consumer keeps an id as one number, with 20 bits for its place in the millisecond. They run out only if the
-- clock has gone far back, so that one millisecond lasts: an empty entry then takes the stream to the next one.
local ms, place = string.match(id, '^(%d+)-(%d+)$')
if tonumber(place) >= 1048575 then
    redis.call('XADD', stream, string.format('%.0f-0', tonumber(ms) + 1), 'clicks', '{}')
end
redis.call('SET', KEYS[2], ARGV[2], 'EX', 86400)
return 'added'
