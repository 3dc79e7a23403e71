-- Rate limits of a tallyd on this host, for nginx with Lua (and, by `ask` alone, for Kong): one question over a cosocket for each request.
-- Connections are kept, 100 by each worker, and tried anew with the next request when tallyd was away.
local tally = require "tally"

local IDLE_MS, IDLE_CONNECTIONS = 60000, 100

local Door = {}
Door.__index = Door

-- options: socket, a path; deadline_ms, how long a request waits for its answer at the most; when_away, "open" or "closed": what becomes of
-- requests for which there is no answer.
function Door.new(options)
  assert(options.when_away == "open" or options.when_away == "closed", 'when_away must be "open" or "closed"')
  return setmetatable(options, Door)
end

-- tally.answer, or nil and why there is none. In phases that may wait: rewrite, access, content.
function Door:ask(asks)
  local socket = ngx.socket.tcp()
  local ends = ngx.now() + self.deadline_ms / 1000
  local function hurry()
    socket:settimeout(math.max(1, (ends - ngx.now()) * 1000))
  end
  hurry()
  local fine, problem = socket:connect("unix:" .. self.socket)
  if not fine then
    return nil, problem
  end
  local sent, answer
  sent, problem = socket:send(tally.question(asks))
  if sent then
    answer, problem = tally.answer(asks, function()
      hurry()
      return socket:receive()
    end)
  end
  if not answer then
    socket:close()  -- a reply that comes too late must not be taken for the next one's
    return nil, problem
  end
  socket:setkeepalive(IDLE_MS, IDLE_CONNECTIONS)
  return answer
end

-- For access_by_lua: lets the request on, with headers that say what is left, or ends it: 429, or 503 where nobody can say and when_away is
-- "closed". An internal redirect, as to an index or an error_page, may bring a request here again: rules that it was asked for are not asked
-- for once more. They stand in its headers, which stay, while ngx.ctx is cleared.
function Door:limit(asks)
  local told = ngx.req.is_internal() and ngx.header["RateLimit-Policy"]
  if told then
    asks = tally.missing(asks, told)
    if #asks == 0 then
      return
    end
  end
  local answer, problem = self:ask(asks)
  if not answer then
    ngx.log(ngx.ERR, "no answer from tallyd at ", self.socket, ": ", problem)
    if self.when_away == "closed" then
      return ngx.exit(503)
    end
    return
  end
  local headers = tally.headers(answer)
  if told then
    headers["RateLimit-Policy"] = told .. ", " .. headers["RateLimit-Policy"]
    headers["RateLimit"] = ngx.header["RateLimit"] .. ", " .. headers["RateLimit"]
  end
  for name, value in pairs(headers) do
    ngx.header[name] = value
  end
  if answer.limited then
    return ngx.exit(429)
  end
end

return Door
