-- Books as Redis keeps them; runs behind ledger.lua.
--
-- A window's book is a hash. Its field HEAD: version, what the book has, and of each line in order what `lately` says of it (ledger.lua),
-- so that all lines can be summed up without reading them; the other fields: lines, by their keys. So a report reads and writes the head and
-- one line. A bucket's book is a string: version, what the book has, and its lines, as every report needs all of them.
--
-- Numbers are little-endian: amounts and times of 7 bytes (whole, below 2^56), what may be below 0 of 7 or 8, demand as a double.
local VERSION = 2
local HEAD = "head"

local pack, unpack_from = struct.pack, struct.unpack
local WINDOW = "<BBBI4I7I7I7I7I7I7i7I7c16I7I7I7I4I2"
local LATE = "I7dI7"
local LINE = "<I2I4I7I7I7i7I7I7I7I7I7I7I7dI7BBBI7Bi8"
local BUCKET = "<Bi8i8i8I7i8I7i8I7c16I7I7I4I2"
local WINDOW_LENGTH, LATE_LENGTH, LINE_LENGTH, BUCKET_LENGTH = struct.size(WINDOW), struct.size("<" .. LATE), struct.size(LINE), struct.size(BUCKET)
local KEY_LENGTH = 20
local AT_ONCE = 64  -- lines whose numbers are on Lua's stack at a time

local function bit(is) return is and 1 or 0 end

local formats = {}  -- of what so many lines were lately
local function late_format(lines)
  formats[lines] = formats[lines] or "<" .. LATE:rep(lines)
  return formats[lines]
end

local function line_text(line)
  return pack(LINE, line.number, line.floor, line.granted, line.returned, line.refunded, line.given, line.used, line.stamp, line.ceiling, line.granted_heard,
              line.wanted, line.waiting_min, line.waiting, line.demand_milli, line.heard, bit(line.turned_away), bit(line.final), bit(line.recalled),
              line.lease, bit(line.held), line.finish)
end

local function read_line(book, key, text, at)
  local line = ledger.new_line(key)
  line.number, line.floor, line.granted, line.returned, line.refunded, line.given, line.used, line.stamp, line.ceiling, line.granted_heard,
    line.wanted, line.waiting_min, line.waiting, line.demand_milli, line.heard, line.turned_away, line.final, line.recalled,
    line.lease, line.held, line.finish = unpack_from(LINE, text, at)
  line.turned_away, line.final, line.recalled, line.held = line.turned_away == 1, line.final == 1, line.recalled == 1, line.held == 1
  book.lines[line.number] = line
  book.found[key] = line
  return line
end

local function check(name, version)
  if version == VERSION then return end
  error({err = "ERR tally: " .. name .. " has books of version " .. version .. ", not " .. VERSION})
end

-- ---- windows --------------------------------------------------------------------------------------------------------------

local function window_of(name, text)
  local book = {name = name, limit = 0, sliding = false, unbounded = false, start = 0, finish = 0, outstanding = 0, used = 0, idle = 0, given = 0, previous = 0, quiet = 0,
                reset = "", reset_at = 0, order = 0, order_until = 0, generation = 0, count = 0, lines = {}, found = {}, late = {}}
  local version, sliding, unbounded, n
  version, sliding, unbounded, book.limit, book.start, book.finish, book.outstanding, book.used, book.idle, book.given,
    book.previous, book.quiet, book.reset, book.reset_at, book.order, book.order_until, book.generation, n = unpack_from(WINDOW, text)
  check(name, version)
  book.sliding, book.unbounded = sliding == 1, unbounded == 1
  if book.previous < 0 then book.previous = nil end
  book.count = n
  if n <= AT_ONCE then
    book.late = {unpack_from(late_format(n), text, WINDOW_LENGTH + 1)}
    return book
  end
  local late = book.late
  for number = 1, n do
    late[3 * number - 2], late[3 * number - 1], late[3 * number] = unpack_from(late_format(1), text, WINDOW_LENGTH + 1 + (number - 1) * LATE_LENGTH)
  end
  return book
end

local function window_text(book)
  local late = book.late
  local n = book.count
  local text = pack(WINDOW, VERSION, bit(book.sliding), bit(book.unbounded), book.limit, book.start, book.finish, book.outstanding, book.used, book.idle, book.given,
                    book.previous or -1, book.quiet, book.reset, book.reset_at, book.order, book.order_until, book.generation, n)
  for _, line in pairs(book.found) do
    local i = 3 * line.number
    late[i - 2], late[i - 1], late[i] = ledger.lately(line)
  end
  for first = 1, n, AT_ONCE do
    local last = math.min(n, first + AT_ONCE - 1)
    text = text .. pack(late_format(last - first + 1), unpack(late, 3 * first - 2, 3 * last))
  end
  return text
end

-- The book of that name with the line of that key, where there are such.
function ledger.load_window(name, key)
  local texts = redis.pcall("HMGET", name, HEAD, key)
  if texts.err then
    if texts.err:find("^WRONGTYPE") then check(name, 1) end  -- which were strings
    error(texts)
  end
  if not texts[1] then return nil end
  local book = window_of(name, texts[1])
  if texts[2] then read_line(book, key, texts[2]) end
  return book
end

function ledger.find(book, key)
  local line = book.found[key]
  if line or not book.name then return line end
  local text = redis.call("HGET", book.name, key)
  return text and read_line(book, key, text) or nil
end

function ledger.all_lines(book)
  if not book.name then return book.lines end
  local texts = redis.call("HGETALL", book.name)
  for i = 1, #texts, 2 do
    if texts[i] ~= HEAD and not book.found[texts[i]] then read_line(book, texts[i], texts[i + 1]) end
  end
  return book.lines
end

-- `finish`: when it ends by itself, in milliseconds since 1970.
function ledger.save_window(name, book, finish)
  local words = {HEAD, window_text(book)}
  for key, line in pairs(book.found) do
    words[#words + 1], words[#words + 2] = key, line_text(line)
    if #words >= 2 * AT_ONCE then
      redis.call("HSET", name, unpack(words))
      words = {}
    end
  end
  if #words > 0 then redis.call("HSET", name, unpack(words)) end
  if not book.name then redis.call("PEXPIREAT", name, ("%.0f"):format(finish)) end
end

-- ---- buckets --------------------------------------------------------------------------------------------------------------

function ledger.load_bucket(name)
  local text = redis.call("GET", name)
  if not text then return nil end
  check(name, text:byte() < 128 and text:byte() or 1)  -- which was MessagePack
  local book = {found = {}, lines = {}, late = {}}
  local version, n
  version, book.emission, book.span, book.lease, book.at, book.tat, book.leases, book.base, book.born, book.reset, book.order, book.order_until,
    book.generation, n = unpack_from(BUCKET, text)
  for at = BUCKET_LENGTH + 1, #text, KEY_LENGTH + LINE_LENGTH do read_line(book, text:sub(at, at + KEY_LENGTH - 1), text, at + KEY_LENGTH) end
  book.count = n
  ledger.sum_up_bucket(book)
  return book
end

function ledger.save_bucket(name, book, finish)
  local parts = {pack(BUCKET, VERSION, book.emission, book.span, book.lease, book.at, book.tat, book.leases, book.base, book.born, book.reset, book.order, book.order_until,
                      book.generation, book.count)}
  for number, line in ipairs(book.lines) do
    line.number = number
    parts[#parts + 1] = line.key
    parts[#parts + 1] = line_text(line)
  end
  redis.call("SET", name, table.concat(parts), "PXAT", ("%.0f"):format(finish))
end
