-- One decision of a central rule: what core/decide.h says, over a count that is kept here. Returns what the decision was made from;
-- tests/books_central_test.cc holds it against the limiter in C++.
--
-- KEYS[1]: the count of one key. ARGV: what ("take", "peek", "give", "reset"), kind ("f" fixed window, "s" sliding window, "c" window of the
-- calendar, "b" token bucket), n (the cost, or what to give back), limit, then of
--   f, s: the window's length in microseconds; for "give" the only window that it may be in, or ""
--   c:    the same (here it only names the window), and the number of the window that the caller's clock shows, and the starts of that
--         one and the next two, in microseconds: the clock here may be a window ahead or behind
--   b:    the nanoseconds between two tokens
-- Returns {done, the time here in microseconds, ...}; done: what was taken (1 or 0), given back (how much), or there to be forgotten.
--   windows: the number of the window, its count, and that of the one before; buckets: how far ahead the arrival time is, in nanoseconds.
--   Of a take as they were before it, otherwise as they are after.
--
-- Numbers are doubles. Amounts are below 2^32, times below 2^53 (a bucket's that takes more than 104 days to fill is exact to 4 ns).
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min

local name = KEYS[1]
local what, kind, n, limit = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if what == "reset" then return {redis.call("DEL", name)} end

local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]
local kept = redis.call("GET", name) or ""

local function keep(text, microseconds)
  redis.call("SET", name, text, "PX", string.format("%.0f", max(1, ceil(microseconds / 1000)) + 1))
end

if kind == "b" then
  local emission = tonumber(ARGV[5])
  local at, ahead = kept:match("^b (%d+) (%d+)$")
  -- A clock here that was set back does not put the arrival time off.
  ahead = at and max(ahead - max(now - at, 0) * 1000, 0) or 0
  local before, done = ahead, 0
  if what == "take" and ahead <= (limit - n) * emission then
    ahead, done = ahead + n * emission, 1
  elseif what == "give" then
    local taken = ceil(ahead / emission)
    if (taken - 1) * emission >= ahead then taken = taken - 1 end
    done = min(n, limit, taken)
    ahead = max(ahead - done * emission, 0)
    before = ahead
  end
  if done > 0 then keep(string.format("b %.0f %.0f", now, ahead), ahead / 1000) end
  return {done, now, before}
end

-- The window by the clock here, and when it ends.
local length = tonumber(ARGV[5])
local number, finish
if kind == "c" then
  number = tonumber(ARGV[7])
  local this, following, after = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
  if now < this then
    number, finish = number - 1, this
  elseif now < following then
    finish = following
  else
    number, finish = number + 1, after
  end
else
  number = floor(now / length)
  finish = (number + 1) * length
end

-- A count of another kind or length was kept under the name by another rule. One of a later window: the clock here was set back, and
-- the decision is made there.
local form, at, count, previous = kept:match("^(%S+) (%d+) (%d+) (%d+)$")
if form ~= kind .. ARGV[5] then
  count, previous = 0, 0
else
  at, count, previous = tonumber(at), tonumber(count), tonumber(previous)
  if at > number then
    number = at
    finish = kind == "c" and now + 2 * length or (number + 1) * length  -- kept too long does no harm
  elseif at == number - 1 then
    count, previous = 0, count
  elseif at < number then
    count, previous = 0, 0
  end
end

-- ceil(used * left / length), exact: long division by digits of 7 bits, as length < 2^45 and used < 2^32.
local function carried_over(used, left)
  local quotient, rest = 0, 0
  for shift = 28, 0, -7 do
    rest = rest * 128 + floor(used / 2 ^ shift) % 128 * left
    local part = floor(rest / length)
    if part * length > rest then part = part - 1 end
    quotient, rest = quotient * 128 + part, rest - part * length
  end
  return rest > 0 and quotient + 1 or quotient
end

local before, done = count, 0
if what == "take" then
  local carried = 0
  if kind == "s" and previous > 0 then carried = carried_over(previous, length - max(now - number * length, 0)) end
  if carried + count + n <= limit then count, done = count + n, 1 end
elseif what == "give" and (ARGV[6] == "" or tonumber(ARGV[6]) == number) then
  done = min(n, limit, count)
  count = count - done
  before = count
end
if done > 0 then
  keep(string.format("%s %.0f %.0f %.0f", kind .. ARGV[5], number, count, kind == "s" and previous or 0), finish - now + (kind == "s" and length or 0))
end
return {done, now, number, before, previous}
