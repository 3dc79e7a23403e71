-- Applies a batch of reports to the books in Redis and returns what each line is granted; runs behind ledger.lua and
-- format.lua, by EVALSHA.
--
-- KEYS[1]: the generation of the books here; the rest: books, as reports name them by number. All are of one slot.
-- ARGV[1], MessagePack: {server, known, quiet, at, reports, since}. `server`: the run id of the server that is asked; `known`: the highest generation
-- that the caller ever heard of, 0: none, and `since` when it began; `quiet`: microseconds in which everybody tells what it holds after a loss;
-- `at`: recent, shares_for, sync in microseconds; a report: see read().
-- Returns MessagePack: {generation, microseconds of quiet left, the time here in microseconds, grants, since when the generation}; a grant: see
-- write(), false where there is none; the grant of a fixed window may have one more as its last field, of the window after.
--
-- A generation ends where books may be lost: another server than before answers (a failover, a restart), nothing is there (a flush), or the caller
-- knows a later one (an old copy was restored), or another one of the same number (lost books were begun by who knew less). Then nothing is
-- granted for `quiet`, and lines that held something are opened as they tell it.
local floor, max = math.floor, math.max

local RECALLED = 3000  -- after so many microseconds what was recalled may be there
local KEPT = 60000     -- so long books are kept when their time is over, in milliseconds

local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]
local server, known, quiet, at, reports, known_since = unpack(cmsgpack.unpack(ARGV[1]))
at = {now = now, recent = at[1], shares_for = at[2], sync = at[3]}

local function current_generation()
  local text = redis.call("GET", KEYS[1])
  local generation = text and cmsgpack.unpack(text)
  local same = generation and (known == 0 or generation.number > known or generation.number == known and generation.since == known_since)
  if same and generation.server == server then return generation end
  local lost = known > 0 or generation ~= false
  generation = {number = max(known, generation and generation.number or 0) + 1, server = server, since = now, lost = lost}
  redis.call("SET", KEYS[1], cmsgpack.pack(generation))
  return generation
end

local generation = current_generation()
local quiet_until = generation.since + quiet

local books, touched = {}, {}  -- by index; false: there are none of that name
local function window_book(index, key)
  if books[index] == nil then books[index] = ledger.load_window(KEYS[index], key) or false end
  return books[index] or nil
end

local function read(r)
  return {kind = r[1], book = r[2], before = r[3], line = r[4], has_ballot = r[5], ballot = r[6], used = r[7], returned = r[8], refunded = r[9], given = r[10],
          ceiling = r[11], granted_heard = r[12], wanted = r[13], waiting_min = r[14], waiting = r[15], demand_milli = r[16], stamp = r[17], floor = r[18],
          final = r[19], far = r[20], reset = r[21], limit = r[22], order = r[32], order_until = r[33],
          sliding = r[23], unbounded = r[24], knows_before = r[25], start = r[26], finish = r[27],            -- of windows
          after = r[28], after_finish = r[29],                                      -- the book of the window after, 0: not to be looked at
          emission = r[28], lease = r[29], lease_length = r[30], charged = r[31]}   -- of buckets
end

local function write(book, line, grant)
  local recalled = line.recalled
  line.recalled = false
  return {grant.generation or book.generation, grant.granted, grant.used_fleet, grant.pool, grant.demand_share, grant.exhausted, grant.stop, recalled, grant.ask_again, book.reset,
          grant.lease or 0, grant.lease_for or 0, grant.tat_ahead or 0}
end

local function heard_reset(book, number)
  if number <= book.reset then return end
  if not book.emission then
    ledger.reset_window(book, number)
    book.reset_at = now
    return
  end
  book.reset = number
  if tonumber(number, 16) >= book.born * 1000 then ledger.reset_bucket(book, now) end  -- else it is from before these books
end

-- Whoever waits gets all that it waits for while there is any. An owner gives by shares of the demand, and again as others report; here nothing is
-- said to those who do not ask, and what was kept for them would be there in vain.
local function issue(line, one, ...)
  repeat local amount = one(...) until amount == 0 or not line.turned_away
end

-- In the last two sync intervals of a fixed window: what a line is expected to need when the next one begins, so that nobody waits there for a
-- round trip. nil: nothing.
local function apply_ahead(report, book, line)
  local left = report.finish - now
  if report.after == 0 or left <= 0 or left > 2 * at.sync or report.finish - report.start < 4 * at.sync then return nil end
  local coming = window_book(report.after, report.line)
  if not coming then
    coming = ledger.new_window({limit = book.limit, sliding = false, unbounded = false, start = report.finish, finish = report.after_finish})
    coming.generation, coming.order, coming.order_until = generation.number, book.order, book.order_until
  end
  local expected = ledger.expected_ahead(book, line, coming, at)
  if expected == 0 or now < coming.quiet or not ledger.may_open(coming) then return nil end
  books[report.after] = coming
  touched[report.after] = report.after_finish
  local own = ledger.find(coming, report.line) or ledger.open_window_line(coming, report.line, report.floor)
  ledger.issue_ahead(coming, own, max(0, expected - own.granted), now)
  return write(coming, own, ledger.window_grant(coming, own, at))
end

-- Tells a line what it is granted though it has not asked: its node listens to a channel of its own (batch.h), so that it gives back before its next
-- report. Where it does not hear of it the report's answer says it again.
local function push(report, book, line)
  local row = write(book, line, ledger.window_grant(book, line, at))
  line.recalled = true
  local name = line.key:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  redis.pcall("PUBLISH", KEYS[1]:match("^.*{") .. "pushed}:" .. name:sub(1, 16), cmsgpack.pack({KEYS[report.book], name, row}))
end

-- What a line has by books before these.
local function held_from_before(report, ours) return max(0, report.ceiling - (ours and report.granted_heard or report.returned)) end

local function apply_window(report)
  local whole = report.finish - report.start
  if now < report.start - whole or now >= report.finish + whole then return false end
  local book = window_book(report.book, report.line)
  local found = book ~= nil
  if not book then
    if report.final and now >= quiet_until then return false end
    book = ledger.new_window(report)
    book.generation = generation.number
    books[report.book] = book
  end
  touched[report.book] = report.finish + (report.sliding and whole or 0)
  ledger.hear_limit(book, report, now)
  heard_reset(book, report.reset)
  local ours = report.has_ballot and report.ballot == book.generation
  local line = ledger.find(book, report.line)
  if not line then
    if not ledger.may_open(book) then return false end
    if report.has_ballot then  -- it holds what books granted that are lost
      line = ledger.open_window_line(book, report.line, held_from_before(report, ours))
      if not found and ours then book.quiet = now + quiet end  -- these alone: Redis has evicted them
    else
      line = ledger.open_window_line(book, report.line, report.floor)
    end
  elseif not report.has_ballot then
    ledger.charge_floor(book, line, report.floor)
  elseif not ours then
    local held = held_from_before(report, ours)
    -- A grant of lost books may have been on its way to it when the line was opened.
    if now < quiet_until then ledger.charge_floor(book, line, held) end
    -- It has given some of that back since, until it hears of these books. Not by a report that comes late, from before such a grant.
    if report.stamp >= line.stamp then ledger.lower_floor(book, line, held) end
  end
  if ours then ledger.hear_granted(book, line, report.granted_heard) end
  ledger.merge_window(book, line, report, ours, now)
  local own = report.before > 0 and window_book(report.before, report.line) or nil
  if own and report.reset > own.reset then
    ledger.reset_window(own, report.reset)
    touched[report.before] = report.finish
  end
  ledger.count_previous(book, own, report.knows_before and now >= quiet_until)  -- by then everybody has told what it used of it
  local waits_until = max(quiet_until, book.quiet)
  local open = now >= waits_until and not (book.sliding and now >= book.finish)
  if open then issue(line, ledger.issue_window, book, line, now, at.recent, report.far) end
  local grant = ledger.window_grant(book, line, at)
  if now < waits_until then
    grant.exhausted, grant.stop, grant.ask_again = false, false, waits_until - now
    -- Until all have told what they hold it is held by the books that are lost: by these it would not be seen what of it came late.
    if not ours then grant.generation, grant.granted = report.has_ballot and report.ballot or 0, report.granted_heard end
  end
  if #grant.recalls > 0 then
    for _, other in ipairs(grant.recalls) do push(report, book, other) end
    grant.ask_again = math.min(grant.ask_again, RECALLED)
  end
  local row = write(book, line, grant)
  if open then row[#row + 1] = apply_ahead(report, book, line) end
  return row
end

local function apply_bucket(report)
  if books[report.book] == nil then books[report.book] = ledger.load_bucket(KEYS[report.book]) or false end
  local book = books[report.book]
  if not book or book.generation ~= generation.number then
    -- What was charged before a loss is not known: all that a bucket can owe, since the last lease of that time has ended.
    local charged = generation.lost and max(0, (quiet_until - now) * 1000 + report.emission * report.limit) or 0
    charged = max(charged, report.charged)
    book = ledger.new_bucket(report, now, charged, now)
    book.generation = generation.number
    books[report.book] = book
  end
  ledger.use_bucket_terms(book, report, report.lease_length, now)
  heard_reset(book, report.reset)
  local ours = report.has_ballot and report.ballot == book.generation
  local line = ledger.find(book, report.line)
  if not line then
    if not ledger.may_open(book) then return false end
    line = ledger.open_bucket_line(book, report.line)
  end
  ledger.merge_bucket(book, line, report, ours, now)
  if ours then ledger.give_bucket(book, line, report.given, now) end
  if now >= quiet_until then issue(line, ledger.issue_bucket, book, line, now, at.recent) end
  local grant = ledger.bucket_grant(book, line, at)
  if now < quiet_until then grant.exhausted, grant.ask_again = false, quiet_until - now end
  local kept = at.recent + floor(book.lease / 1000)
  ledger.forget_bucket_lines(book, now, kept)
  local last = max(0, book.tat)
  for _, other in ipairs(book.lines) do last = max(last, other.finish) end
  touched[report.book] = now + last / 1000 + kept
  return write(book, line, grant)
end

local apply = {w = apply_window, b = apply_bucket}
local grants = {}
for i, r in ipairs(reports) do
  local report = read(r)
  grants[i] = apply[report.kind](report)
end
for index, until_then in pairs(touched) do
  local book = books[index]
  local save = book.emission and ledger.save_bucket or ledger.save_window
  save(KEYS[index], book, floor(until_then / 1000) + KEPT)
end
return cmsgpack.pack({generation.number, max(0, quiet_until - now), now, grants, generation.since})
