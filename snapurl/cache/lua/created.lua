-- ARGV: what the links' keys begin with, milliseconds that a version lives, the channel, the invalidation: `1` and codes.
-- Of each code that Redis does not know to be a link, it keeps that there is a version 1. The codes come in one text,
-- because parsing an argument for each costs more than all the rest.
local one = '1'
for code in string.gmatch(ARGV[4], ' (%S+)') do
    local key = ARGV[1] .. code
    if not redis.call('SET', key, one, 'PX', ARGV[2], 'NX') then
        local known = redis.pcall('GET', key) -- an error if it is no string
        if type(known) ~= 'string' or version(known) < 1 then
            redis.call('SET', key, one, 'PX', ARGV[2])
        end
    end
end
redis.call('PUBLISH', ARGV[3], ARGV[4])
