-- Rate limits of a tallyd on this host, for HAProxy (2.4 or later): the action lua.tally asks, the configuration decides.
--
--   http-request lua.tally api=txn.client,login=txn.user    asks two rules at once, with the keys that are in these variables
--
-- It sets txn.tally to "admitted" or "limited", txn.tally_limits and txn.tally_policy to the values of the headers RateLimit and
-- RateLimit-Policy, txn.tally_limit, _remaining, _reset to those of the tightest rule, and txn.tally_retry_after where waiting helps. Where
-- tallyd gives no answer it sets nothing.
--
-- Each thread keeps connections of its own, so load it with lua-load-per-thread. A kept connection may have been closed by a tallyd that was
-- restarted; then the next one is tried, and at last a new one. What is asked twice by that may be counted twice, so more may be denied, never
-- admitted.
local tally = require("tally")

local ADDRESS = "unix@" .. (os.getenv("TALLY_SOCKET") or "/run/tallyd/tallyd.sock")
local DEADLINE_S = (tonumber(os.getenv("TALLY_DEADLINE_MS")) or 50) / 1000
local IDLE_S, IDLE_CONNECTIONS = 60, 100

local idle = {}

local function now()
  local time = core.now()
  return time.sec + time.usec / 1000000
end

-- The answer, or nil and why there is none. May raise: HAProxy's sockets do where they are closed.
local function talk(socket, connected, asks, ends)
  local function hurry()
    socket:settimeout(math.max(0.001, ends - now()))
  end
  hurry()
  if not connected and not socket:connect(ADDRESS) then
    return nil, "cannot connect to " .. ADDRESS
  end
  local question = tally.question(asks)
  if socket:send(question) ~= #question then
    return nil, "cannot send"
  end
  local answer, problem = tally.answer(asks, function()
    hurry()
    return socket:receive("*l")
  end)
  if answer and #idle < IDLE_CONNECTIONS then
    socket:settimeout(IDLE_S)
    idle[#idle + 1] = socket
  elseif answer then
    socket:close()
  end
  return answer, problem
end

local function ask(asks)
  local ends, problem = now() + DEADLINE_S, nil
  repeat
    local kept = table.remove(idle)
    local socket = kept or core.tcp()
    local fine, answer, why = pcall(talk, socket, kept ~= nil, asks, ends)
    if fine and answer then
      return answer
    end
    problem = fine and why or answer
    pcall(socket.close, socket)  -- a reply that comes too late must not be taken for the next one's
  until not kept or now() >= ends
  return nil, problem
end

-- "api=txn.client,login=txn.user" as { { rule =, variable = }, ... }
local function parse(text)
  local wanted = {}
  for word in text:gmatch("[^,]+") do
    local rule, variable = word:match("^(.+)=([^=]+)$")
    wanted[#wanted + 1] = { rule = assert(rule, "not RULE=VARIABLE: " .. word), variable = variable }
  end
  return wanted
end

local parsed = {}

core.register_action("tally", { "http-req" }, function(txn, text)
  parsed[text] = parsed[text] or parse(text)
  local asks = {}
  for i, wanted in ipairs(parsed[text]) do
    asks[i] = { rule = wanted.rule, key = txn:get_var(wanted.variable) }
  end
  local answer, problem = ask(asks)
  if not answer then
    core.log(core.err, "no answer from tallyd: " .. tostring(problem))
    return
  end
  local headers = tally.headers(answer)
  txn:set_var("txn.tally", answer.limited and "limited" or "admitted")
  txn:set_var("txn.tally_limits", headers["RateLimit"])
  txn:set_var("txn.tally_policy", headers["RateLimit-Policy"])
  txn:set_var("txn.tally_limit", headers["X-RateLimit-Limit"])
  txn:set_var("txn.tally_remaining", headers["X-RateLimit-Remaining"])
  txn:set_var("txn.tally_reset", headers["X-RateLimit-Reset"])
  if headers["Retry-After"] then
    txn:set_var("txn.tally_retry_after", headers["Retry-After"])
  end
end, 1)
