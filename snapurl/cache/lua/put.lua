-- KEYS: the links' keys. ARGV: milliseconds that a link lives, those of a miss (version 0), the bytes that Redis may use
-- before it takes no more links, 1 if the links have changed, then a value for each key.
-- Returns how many values were left out because of the bytes.
--
-- Takes a value only if its version is higher than the one that is there, so a slow reader can never put an old value
-- back. Beyond the bytes, and never less than half of maxmemory is left to the clicks, a change leaves
-- its version alone.
local memory = redis.call('INFO', 'memory')
local used = tonumber(string.match(memory, 'used_memory:(%d+)'))
local maxmemory = tonumber(string.match(memory, 'maxmemory:(%d+)'))
local full = used > tonumber(ARGV[3]) or (maxmemory > 0 and used > maxmemory / 2)
local has_changed = ARGV[4] == '1'
local left_out = 0
for i, key in ipairs(KEYS) do
    local value = ARGV[i + 4]
    if full then
        left_out = left_out + 1
        value = string.match(value, '^%d+')
    end
    if has_changed or not full then
        local age = string.match(value, '^%d+') == '0' and ARGV[2] or ARGV[1]
        if not redis.call('SET', key, value, 'PX', age, 'NX') then
            local known = redis.pcall('GET', key) -- an error if it is no string
            if type(known) ~= 'string' or version(known) < version(value) then
                redis.call('SET', key, value, 'PX', age)
            end
        end
    end
end
return left_out
