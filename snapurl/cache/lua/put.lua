-- KEYS: the links' keys; ARGV: milliseconds that a link lives, those of a miss (version 0), then a value for each key. Takes
-- a value only if its version is higher than the one that is there, so a slow reader can never put an old value back.
-- Values begin with their version.
local function version(value)
    return tonumber(string.match(value, '^%d+'))
end
for i, key in ipairs(KEYS) do
    local value = ARGV[i + 2]
    local age = version(value) == 0 and ARGV[2] or ARGV[1]
    if not redis.call('SET', key, value, 'PX', age, 'NX') then
        if version(redis.call('GET', key)) < version(value) then
            redis.call('SET', key, value, 'PX', age)
        end
    end
end
