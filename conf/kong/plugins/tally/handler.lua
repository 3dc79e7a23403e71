-- Kong's plugin `tally`: rate limits that a tallyd on this host counts. It answers with the headers of Kong's own rate-limiting plugin.
--
-- Tested with Debian's nginx and Lua and a stand-in for what it calls of Kong's PDK (tests/proxies/kong_stand_in.lua), not with a Kong.
local Door = require "tally_nginx"

local Plugin = {
  PRIORITY = 909,  -- behind authentication (1000 and more) and Kong's rate-limiting (910)
  VERSION = "0.1.0",
}

local NONE = {}

-- What is counted for a rule, with its kind in front: a header's value must not be able to stand for somebody's address.
local IDENTIFIERS = {
  consumer = function() return (kong.client.get_consumer() or kong.client.get_credential() or NONE).id end,
  credential = function() return (kong.client.get_credential() or NONE).id end,
  service = function() return (kong.router.get_service() or NONE).id end,
  route = function() return (kong.router.get_route() or NONE).id end,
  header = function(rule) return kong.request.get_header(rule.header_name) end,
  path = function(rule) return kong.request.get_path() == rule.path and rule.path or nil end,
  ip = function() return kong.client.get_forwarded_ip() end,
}

-- Who has no such identifier is counted by address, as by Kong's rate-limiting.
local function key_of(rule)
  local kind = rule.limit_by
  local identifier = IDENTIFIERS[kind](rule)
  if not identifier then
    kind, identifier = "ip", IDENTIFIERS.ip()
  end
  return kind .. ":" .. identifier
end

local function headers_of(conf, answer)
  local tightest = answer.tightest
  local headers = {
    ["RateLimit-Limit"] = tightest.limit,
    ["RateLimit-Remaining"] = tightest.remaining,
    ["RateLimit-Reset"] = tightest.reset,
    ["Retry-After"] = answer.limited and tightest.retry_after or nil,
  }
  for i, rule in ipairs(conf.rules) do
    if rule.window then
      local window = rule.window:gsub("^%l", string.upper)
      local name = "X-RateLimit-Remaining-" .. window
      if not headers[name] or answer[i].remaining < headers[name] then  -- of two rules with this window the tighter one
        headers[name] = answer[i].remaining
        headers["X-RateLimit-Limit-" .. window] = answer[i].limit
      end
    end
  end
  return headers
end

function Plugin:access(conf)
  local asks = {}
  for i, rule in ipairs(conf.rules) do
    asks[i] = { rule = rule.name, key = key_of(rule) }
  end
  local answer, problem = Door.ask({ socket = conf.socket, deadline_ms = conf.deadline }, asks)
  if not answer then
    kong.log.err("no answer from tallyd at ", conf.socket, ": ", problem)
    if not conf.fault_tolerant then
      return kong.response.exit(503, { message = "Rate limits cannot be checked" })
    end
    return
  end
  local headers = not conf.hide_client_headers and headers_of(conf, answer) or nil
  if answer.limited then
    return kong.response.exit(429, { message = "API rate limit exceeded" }, headers)
  end
  kong.ctx.plugin.headers = headers
end

function Plugin:header_filter()
  if kong.ctx.plugin.headers then
    kong.response.set_headers(kong.ctx.plugin.headers)
  end
end

return Plugin
