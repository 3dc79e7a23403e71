-- What can be configured of Kong's plugin `tally`.
local typedefs = require "kong.db.schema.typedefs"

return {
  name = "tally",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = {
      type = "record",
      fields = {
        { socket = { type = "string", required = true, default = "/run/tallyd/tallyd.sock", starts_with = "/" } },
        { deadline = { type = "integer", required = true, default = 50, between = { 1, 60000 } } },  -- ms; no request waits longer
        { fault_tolerant = { type = "boolean", required = true, default = true } },  -- while tallyd is away; false: answer 503
        { hide_client_headers = { type = "boolean", required = true, default = false } },
        { rules = {  -- of tallyd; a request must be admitted by all of them
          type = "array",
          required = true,
          len_min = 1,
          elements = {
            type = "record",
            fields = {
              { name = { type = "string", required = true } },
              { limit_by = { type = "string", required = true, default = "consumer",
                             one_of = { "consumer", "credential", "ip", "service", "route", "header", "path" } } },
              { header_name = { type = "string" } },
              { path = { type = "string", starts_with = "/" } },
              { window = { type = "string", one_of = { "second", "minute", "hour", "day" } } },  -- the rule's, for X-RateLimit-Limit-Minute
            },
            entity_checks = {
              { conditional = { if_field = "limit_by", if_match = { eq = "header" }, then_field = "header_name", then_match = { required = true } } },
              { conditional = { if_field = "limit_by", if_match = { eq = "path" }, then_field = "path", then_match = { required = true } } },
            },
          },
        } },
      },
    } },
  },
}
