-- What a tallyd is asked and what it answers, for every proxy that runs Lua: nginx, Kong and HAProxy. Bytes in, bytes out; it knows no
-- socket and no proxy. Lua 5.1 (LuaJIT) to 5.4.
--
-- An ask is { rule = "api", key = "203.0.113.7", cost = 1, window = 60 }: cost is 1 where it is left out or no number, else rounded up, 0 to
-- 2^32 - 1; window (seconds) is only shown in headers. Several asks of one request are taken all or nothing.
local tally = {}

local KEY_BYTES = 1024  -- tallyd's limits.key_bytes, by default
local COST_MOST = 4294967295

-- Whoever sends a request often chooses its key, and may shape its cost, so neither may end in an error, which would let the request in while
-- tallyd counts as away: requests without a key share one count, and so do those whose keys differ only behind the bytes that count.
local function countable(key)
  if key == nil or key == "" then
    return "-"
  end
  return tostring(key):sub(1, KEY_BYTES)
end

local function whole(cost)
  cost = tonumber(cost)
  if not cost or cost ~= cost then
    return "1"
  end
  return ("%d"):format(math.max(0, math.min(math.ceil(cost), COST_MOST)))
end

-- A command as RESP: an array of bulk strings.
local function encode(words)
  local out = { "*" .. #words .. "\r\n" }
  for _, word in ipairs(words) do
    out[#out + 1] = "$" .. #word .. "\r\n" .. word .. "\r\n"
  end
  return table.concat(out)
end

function tally.question(asks)
  local words = { #asks == 1 and "TALLY.TAKE" or "TALLY.TAKEALL" }
  for _, ask in ipairs(asks) do
    words[#words + 1] = ask.rule
    words[#words + 1] = countable(ask.key)
    words[#words + 1] = whole(ask.cost)
  end
  return encode(words)
end

-- A reply of integers and arrays of them; nil and why, where it is anything else. `line` reads a line, without its end.
local function reply(line)
  local text, problem = line()
  if not text then
    return nil, problem
  end
  local kind, rest = text:sub(1, 1), text:sub(2)
  if kind == ":" then
    return tonumber(rest)
  elseif kind == "*" then
    local list = {}
    for i = 1, tonumber(rest) do
      list[i], problem = reply(line)
      if list[i] == nil then
        return nil, problem
      end
    end
    return list
  end
  return nil, kind == "-" and rest or "not a reply: " .. text
end

-- A reply to so many asks as TALLY.TAKEALL says it; nil, where it is none.
local function told_of(told, asks)
  if type(told) ~= "table" or #told ~= (asks == 1 and 6 or asks + 2) then
    return nil
  end
  if asks == 1 then
    return { told[1], told[1] - 1, told }
  end
  for i = 3, #told do
    if type(told[i]) ~= "table" or #told[i] ~= 6 then
      return nil
    end
  end
  return told[2] < asks and told or nil
end

-- Whole seconds, rounded up, at least `least`; nil for -1, which is "never" or "no need to".
local function seconds(milliseconds, least)
  if milliseconds >= 0 then
    return math.max(least, math.ceil(milliseconds / 1000))
  end
end

-- Reads what tallyd answers to tally.question(asks): { limited = true or false, tightest = one of these, and for each ask
-- { rule, window, limit, remaining, reset (s), retry_after (s, or nil) } }. tightest is the one that refused, or else the one with the least
-- left. nil and why, where there is no answer.
function tally.answer(asks, line)
  local told, problem = reply(line)
  if not told then
    return nil, problem
  end
  told = told_of(told, #asks)
  if not told then
    return nil, "not an answer to what was asked"
  end
  local answer = { limited = told[1] == 1 }
  for i, ask in ipairs(asks) do
    local six = told[i + 2]
    local one = { rule = ask.rule, window = ask.window, limit = six[2], remaining = six[3], retry_after = seconds(six[4], 1),
                  reset = seconds(six[5], 0) }
    answer[i] = one
    if not answer.tightest or one.remaining < answer.tightest.remaining then
      answer.tightest = one
    end
  end
  if told[2] >= 0 then
    answer.tightest = answer[told[2] + 1]
  end
  return answer
end

local function quoted(name)
  return '"' .. name:gsub('[\\"]', "\\%0") .. '"'
end

-- The asks whose rules a value of the header RateLimit-Policy, made by tally.headers, does not name.
function tally.missing(asks, policy)
  local missing = {}
  for _, ask in ipairs(asks) do
    if not (", " .. policy):find(", " .. quoted(ask.rule) .. ";", 1, true) then
      missing[#missing + 1] = ask
    end
  end
  return missing
end

-- The headers of a response, by name: RateLimit-Policy and RateLimit with every rule (draft-ietf-httpapi-ratelimit-headers),
-- X-RateLimit-* with the tightest, and Retry-After where it refused and waiting helps.
function tally.headers(answer)
  local policies, limits = {}, {}
  for i, one in ipairs(answer) do
    policies[i] = quoted(one.rule) .. ";q=" .. one.limit .. (one.window and ";w=" .. one.window or "")
    limits[i] = quoted(one.rule) .. ";r=" .. one.remaining .. ";t=" .. one.reset
  end
  local one = answer.tightest
  return {
    ["RateLimit-Policy"] = table.concat(policies, ", "),
    ["RateLimit"] = table.concat(limits, ", "),
    ["X-RateLimit-Limit"] = one.limit,
    ["X-RateLimit-Remaining"] = one.remaining,
    ["X-RateLimit-Reset"] = one.reset,
    ["Retry-After"] = answer.limited and one.retry_after or nil,
  }
end

return tally
