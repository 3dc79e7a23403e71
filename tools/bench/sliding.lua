-- A sliding window in Redis, as limiters keep it: a sorted set of the requests of the last window. KEYS[1]; ARGV: limit, window (ms).
-- Times in microseconds on Redis's own clock. Replies {limited, remaining}.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, now - ARGV[2] * 1000)
local count = redis.call('ZCARD', KEYS[1])
local limit = tonumber(ARGV[1])
if count >= limit then return {1, 0} end
redis.call('ZADD', KEYS[1], now, now)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {0, limit - count - 1}
