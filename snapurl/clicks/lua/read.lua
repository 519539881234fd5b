-- KEYS: the stream. ARGV: where to begin, entries at most, bytes at most.
-- Returns the next entries, at least one if there is one, and whether a bound ended them.
local found, bytes, start = {}, 0, ARGV[1]
while true do
    local entry = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', 1)[1]
    if not entry then
        return {found, 0}
    end
    for _, part in ipairs(entry[2]) do
        bytes = bytes + #part
    end
    if #found > 0 and (#found >= tonumber(ARGV[2]) or bytes > tonumber(ARGV[3])) then
        return {found, 1}
    end
    found[#found + 1] = entry
    start = '(' .. entry[1]
end
