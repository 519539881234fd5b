-- KEYS: HyperLogLogs of visitors. Returns how many each has counted, 0 where there is none or it is none.
local counts = {}
for number, key in ipairs(KEYS) do
    local count = redis.pcall('PFCOUNT', key)
    counts[number] = type(count) == 'number' and count or 0
end
return counts
