-- KEYS: the links' keys; ARGV, three for each: version, value, milliseconds to live. Takes a value only if its version
-- is higher than the one that is there, so a slow reader can never put an old value back. Values begin with their
-- version.
for i, key in ipairs(KEYS) do
    local version, value, age = ARGV[3 * i - 2], ARGV[3 * i - 1], ARGV[3 * i]
    local known = redis.call('GET', key)
    if not known or tonumber(string.match(known, '^%d+')) < tonumber(version) then
        redis.call('SET', key, value, 'PX', age)
    end
end
