-- KEYS[1] the link's key; ARGV: version, value, milliseconds to live. Takes a value only if its version is higher
-- than the one that is there, so a slow reader can never put an old value back. Values begin with their version.
local known = redis.call('GET', KEYS[1])
if known and tonumber(string.match(known, '^%d+')) >= tonumber(ARGV[1]) then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
