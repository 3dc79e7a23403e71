-- A stand-in for the parts of Kong that conf/kong/plugins/tally calls, so that the plugin runs in Debian's nginx. It is not Kong: it knows a
-- handful of functions of the PDK by their documentation, checks a plugin's configuration by the few kinds of fields that the plugin's schema
-- has, and takes from request headers (X-Consumer, X-Credential, X-Service, X-Route) who is asking and for what.
local cjson = require "cjson"

package.preload["kong.db.schema.typedefs"] = function()
  return { protocols_http = { type = "set", default = { "http", "https" } } }
end

local function identified(header)
  return function()
    local id = ngx.req.get_headers()[header]
    return id and { id = id } or nil
  end
end

kong = {
  client = { get_consumer = identified("X-Consumer"), get_credential = identified("X-Credential"),
             get_forwarded_ip = function() return ngx.var.remote_addr end },
  router = { get_service = identified("X-Service"), get_route = identified("X-Route") },
  request = { get_header = function(name) return ngx.req.get_headers()[name] end, get_path = function() return ngx.var.uri end },
  log = { err = function(...) ngx.log(ngx.ERR, ...) end },
  ctx = { plugin = setmetatable({}, { __index = function(_, k) return ngx.ctx[k] end, __newindex = function(_, k, v) ngx.ctx[k] = v end }) },
  response = {},
}

function kong.response.set_headers(headers)
  for name, value in pairs(headers) do
    ngx.header[name] = value
  end
end

function kong.response.exit(status, body, headers)
  ngx.status = status
  kong.response.set_headers(headers or {})
  ngx.header["Content-Type"] = "application/json; charset=utf-8"
  ngx.print(cjson.encode(body))
  return ngx.exit(status)
end

local check

local function check_record(schema, given, place)
  local known, checked = {}, {}
  for _, entry in ipairs(schema.fields) do
    local name, field = next(entry)
    known[name] = true
    checked[name] = check(field, given[name], place .. "." .. name)
  end
  for name in pairs(given) do
    assert(known[name], place .. "." .. name .. ": unknown field")
  end
  for _, entity in ipairs(schema.entity_checks or {}) do
    local c = assert(entity.conditional)
    if checked[c.if_field] == c.if_match.eq then
      assert(checked[c.then_field] ~= nil or not c.then_match.required, place .. "." .. c.then_field .. ": required field missing")
    end
  end
  return checked
end

local LUA_TYPES = { string = "string", boolean = "boolean", integer = "number", array = "table", record = "table", set = "table" }

function check(field, given, place)
  if given == nil then
    given = field.default
  end
  if given == nil then
    assert(not field.required, place .. ": required field missing")
    return nil
  end
  assert(type(given) == LUA_TYPES[field.type], place .. ": expected " .. field.type)
  if field.type == "record" then
    return check_record(field, given, place)
  elseif field.type == "array" then
    assert(#given >= (field.len_min or 0), place .. ": length must be at least " .. (field.len_min or 0))
    local checked = {}
    for i, each in ipairs(given) do
      checked[i] = check(field.elements, each, place .. "[" .. i .. "]")
    end
    return checked
  end
  assert(not field.between or (given >= field.between[1] and given <= field.between[2]), place .. ": out of range")
  assert(not field.starts_with or given:sub(1, #field.starts_with) == field.starts_with, place .. ": should start with " .. tostring(field.starts_with))
  local found = not field.one_of
  for _, value in ipairs(field.one_of or {}) do
    found = found or value == given
  end
  assert(found, place .. ": expected one of: " .. table.concat(field.one_of or {}, ", "))
  return given
end

local StandIn = {}

-- Takes the plugin and its configuration from a declarative configuration; what is wrong with it is an error.
function StandIn.load(path)
  local file = assert(io.open(path))
  local declared = cjson.decode(file:read("*a"))
  file:close()
  local entry = declared.plugins[1]
  local schema = require("kong.plugins." .. entry.name .. ".schema")
  local plugin = require("kong.plugins." .. entry.name .. ".handler")
  local checked = check_record({ fields = schema.fields }, { config = entry.config }, entry.name)
  return {
    access = function() plugin:access(checked.config) end,
    header_filter = function() plugin:header_filter(checked.config) end,
  }
end

return StandIn
