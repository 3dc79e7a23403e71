-- GCRA as one would write it for Redis: the comparison for CL.THROTTLE. KEYS[1]; ARGV: max_burst, count, period (s), quantity.
-- Times in microseconds on Redis's own clock; the key holds the theoretical arrival time. Replies as CL.THROTTLE does.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local burst = ARGV[1] + 1
local emission = ARGV[3] * 1000000 / ARGV[2]
local tat = math.max(now, tonumber(redis.call('GET', KEYS[1]) or now))
local new_tat = tat + emission * ARGV[4]
local span = burst * emission
local over = new_tat - span - now
if over > 0 then
  return {1, burst, math.floor((span - (tat - now)) / emission), math.ceil(over / 1000000), math.ceil((tat - now) / 1000000)}
end
redis.call('SET', KEYS[1], string.format('%.0f', new_tat), 'PX', math.ceil((new_tat - now) / 1000))
return {0, burst, math.floor((span - (new_tat - now)) / emission), -1, math.ceil((new_tat - now) / 1000000)}
