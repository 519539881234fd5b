-- KEYS[1] the lease; ARGV: holder, milliseconds. Takes or renews it; 0 if another holds it.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
    return 0
end
if holder then
    redis.call('PEXPIRE', KEYS[1], ARGV[2]) -- which a Redis that is full does, too
else
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
