-- KEYS: where the stream's name is kept, where this worker's last number is kept, the bytes that the visitors of each of
-- four days take, the first of them that of the entry, then the visitors of each code.
-- ARGV: a name for the stream if it has none yet, the entry's number, entries at most, the clicks, bots and sources of the
-- entry (empty if there are none), the name by which logs call it, seconds that visitors are kept, bytes that they may take,
-- then per code its visitors, 8 bytes each.
-- Adds the entry unless it is there already, so that a worker whose reply was lost can send it again. The name is
-- part of the data: a Redis that has lost its data gets a stream with another name, and so with fresh cursors.
-- Returns what became of it, the bytes that visitors take, those that they may take, and how many visitors were left out.
local DIGEST = 8
local DIGESTS_PER_CALL = 1000
local KEY_BYTES = 300 -- of Redis, for a key of visitors beside them

local function add_visitors(left)
    local used, added = 0, 0
    for day = 3, 6 do
        used = used + tonumber(redis.call('GET', KEYS[day]) or '0')
    end
    left.used = used
    local limit = tonumber(ARGV[9])
    local maxmemory = tonumber(string.match(redis.call('INFO', 'memory'), 'maxmemory:(%d+)'))
    if maxmemory > 0 then
        limit = math.min(limit, maxmemory / 8)
    end
    left.limit = limit
    for i = 7, #KEYS do
        local digests = ARGV[i + 3]
        if used + added >= limit then
            left.out = left.out + #digests / DIGEST
        else
            local before = redis.call('STRLEN', KEYS[i])
            for first = 1, #digests, DIGEST * DIGESTS_PER_CALL do
                local some = {}
                for at = first, math.min(first + DIGEST * DIGESTS_PER_CALL - 1, #digests), DIGEST do
                    some[#some + 1] = string.sub(digests, at, at + DIGEST - 1)
                end
                redis.call('PFADD', KEYS[i], unpack(some))
            end
            added = added + redis.call('STRLEN', KEYS[i]) - before
            if before == 0 then
                redis.call('EXPIRE', KEYS[i], ARGV[8])
                added = added + KEY_BYTES
            end
        end
    end
    if added > 0 then
        redis.call('INCRBY', KEYS[3], added)
        redis.call('EXPIRE', KEYS[3], 2 * ARGV[8])
        left.used = used + added
    end
end

local stream = redis.call('GET', KEYS[1])
if not stream then
    stream = ARGV[1]
    redis.call('SET', KEYS[1], stream)
end
if tonumber(ARGV[2]) <= tonumber(redis.call('GET', KEYS[2]) or '0') then
    return {'again', 0, 0, 0}
end
if redis.call('XLEN', stream) >= tonumber(ARGV[3]) then
    return {'full', 0, 0, 0}
end
local fields = {'clicks', ARGV[4], 'shipment', ARGV[7]}
for at, name in ipairs({'bots', 'sources'}) do
    if ARGV[at + 4] ~= '' then
        fields[#fields + 1] = name
        fields[#fields + 1] = ARGV[at + 4]
    end
end
local id = redis.call('XADD', stream, '*', unpack(fields))
-- The consumer keeps an id as one number, with 20 bits for its place in the millisecond. They run out only if the
-- clock has gone far back, so that one millisecond lasts: an empty entry then takes the stream to the next one.
local ms, place = string.match(id, '^(%d+)-(%d+)$')
if tonumber(place) >= 1048575 then
    redis.call('XADD', stream, string.format('%.0f-0', tonumber(ms) + 1), 'clicks', '{}')
end
redis.call('SET', KEYS[2], ARGV[2], 'EX', 86400)
local left = {used = 0, limit = 0, out = 0}
if #KEYS > 6 then
    pcall(add_visitors, left) -- Redis may be full; the entry has been added all the same
end
return {'added', left.used, left.limit, left.out}
