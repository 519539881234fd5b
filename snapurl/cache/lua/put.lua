-- KEYS: the links' keys. ARGV: milliseconds that a link lives, those of a miss (version 0), the bytes that Redis may use
-- before it takes no more links, 1 if the links have changed, then a value for each key.
-- Returns how many values were left out because of the bytes.
--
-- Takes a value only if its version is higher than the one that is there, so a slow reader can never put an old value
-- back. Values begin with their version, or are nothing else: then a link of that version takes its place, as it does if
-- the value has another encoding than the one that workers of this release believe (`codec.py`). A malformed value has
-- no version. Beyond the bytes, and never less than half of maxmemory is left to the clicks, a change leaves
-- its version alone.
local function version(value)
    local digits, encoding = string.match(value, '^(%d+)(.?.?.?)')
    if not digits or #digits > 15 or not string.match(encoding, '^ ?$') and string.sub(encoding, 1, 1) ~= ' ' then
        return -1
    end
    return tonumber(digits) + (encoding == ' 2 ' and 0.5 or 0)
end
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
