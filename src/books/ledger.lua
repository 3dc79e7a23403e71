-- The owner's rules over books that are kept in Redis: what cluster/window_book.cc and cluster/bucket_book.cc say, where no marks are
-- needed, as one place has all books. tests/books_ledger_test.cc holds both against each other.
--
-- Pure functions of tables. Numbers are doubles: every amount and time is a whole number below 2^53, or was capped. Times are
-- microseconds of one clock, but for a bucket's, which are nanoseconds from book.at on. Cumulative numbers are merged by max,
-- so a report that is applied twice, or late, changes nothing.
--
-- A window's book: limit, sliding, unbounded, start, finish (of the window), outstanding (sum over lines), used, given, previous (of the
-- window before; absent: not known, all of the limit), quiet (nothing is issued before), lines.
-- A bucket's book: emission, span, lease, at, tat (both as in GCRA), leases (the last number given out), born and base (since when, and
-- what was charged then), lines.
-- A line: key (node, life, number), and what cluster/line.h says.
local ledger = {}

local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min

local AMOUNT_MAX = 2 ^ 40           -- no honest cost is larger
local BUCKET_AMOUNT_MAX = 2 ^ 52    -- nor amount of nanoseconds, where numbers are exact
local LINES_MAX = 4096
local NO_RESET = ("0"):rep(16)     -- resets have 16 hexadecimal digits: the nanosecond of a wall clock
local UNKNOWN = -1                  -- of what a line gave back: its next report tells from where to count
local NEAR_HOLD_PARTS = 8           -- see cluster/window_book.cc
local FAR_HEADROOM_PARTS = 4

local function minus(a, b)
  if a > b then return a - b end
  return 0
end

-- n * q / w as quotient and rest, exact for n < 2^49 and q <= w <= 2^45: long division by digits of 7 bits.
local function divided(n, q, w)
  local quotient, rest = 0, 0
  for shift = 42, 0, -7 do
    rest = rest * 128 + floor(n / 2 ^ shift) % 128 * q
    local part = floor(rest / w)
    if part * w > rest then part = part - 1 end
    quotient = quotient * 128 + part
    rest = rest - part * w
  end
  return quotient, rest
end

local function level(left, of)
  if of == 0 then return 0 end
  return min(255, floor(left * 255 / of))
end

-- ---- lines ----------------------------------------------------------------------------------------------------------------

local function net_used(line) return minus(line.used, line.refunded) end
local function in_flight(line) return minus(line.granted, line.granted_heard) end
local function need(line) return minus(line.wanted, line.ceiling + in_flight(line)) end
local function unmet(line)
  if line.waiting == 0 then return 0 end
  return min(minus(line.waiting, in_flight(line)), need(line))
end
local function demand(line) return line.demand_milli / 1000 + unmet(line) end
local function unspent(line) return minus(line.floor + line.granted + line.refunded, line.returned + line.used) end

local function new_line(key)
  return {key = key, floor = 0, granted = 0, returned = 0, refunded = 0, given = 0, used = 0, stamp = "", ceiling = 0, granted_heard = 0,
          wanted = 0, waiting_min = 0, waiting = 0, demand_milli = 0, heard = 0, turned_away = false, final = false, recalled = false, lease = 0,
          held = false, finish = 0}
end

local function find(book, key)
  for _, line in ipairs(book.lines) do
    if line.key == key then return line end
  end
end

local function take_newest(line, report, same_books, now)
  line.heard = now
  if report.stamp < line.stamp then return false end
  line.stamp = report.stamp
  line.ceiling = report.ceiling
  line.granted_heard = same_books and min(report.granted_heard, line.granted) or 0
  line.wanted = report.wanted
  line.waiting_min = report.waiting_min
  line.waiting = report.waiting
  line.demand_milli = report.demand_milli
  return true
end

local function demand_of_late(book, now, within)
  local all, lines = 0, 0
  for _, line in ipairs(book.lines) do
    if now - line.heard <= within and (line.demand_milli ~= 0 or line.waiting ~= 0) then
      lines = lines + 1
      all = all + demand(line)
    end
  end
  return all, max(1, lines)
end

local function demand_share(book, line, now, within)
  local all = demand_of_late(book, now, within)
  if all <= 0 then return 0 end
  return floor(min(1, demand(line) / all) * 65535)
end

-- ---- windows --------------------------------------------------------------------------------------------------------------

local function has_unbounded_floor(book, line) return book.unbounded and line.floor > 0 and line.returned == 0 end

local function line_outstanding(book, line)
  if has_unbounded_floor(book, line) then return net_used(line) end
  return max(minus(line.floor + line.granted, line.returned), net_used(line))
end

local function outstanding(book) return minus(book.outstanding, book.given) end
local function used(book) return minus(book.used, book.given) end

local function previous(book) return min(book.previous or book.limit, book.limit) end

local function allowance(book, now)
  if now < book.start then return 0 end
  if not book.sliding or now >= book.finish then return book.limit end
  local whole = book.finish - book.start
  local carried, rest = divided(previous(book), book.finish - now, whole)
  if rest > 0 then carried = carried + 1 end
  return minus(book.limit, carried)
end

-- The smallest time in a window of that length at which not more than `target` of `count` is carried over.
local function elapsed_when_carried(count, target, whole)
  if count <= target then return 0 end
  return whole - (divided(whole, target, count))
end

local function regrows_after(book, cost, now)
  if now < book.start or now >= book.finish then return 0 end
  local limit, spent = book.limit, used(book)
  if not book.sliding then return book.finish - now end
  local whole, elapsed, before = book.finish - book.start, now - book.start, previous(book)
  if spent + cost <= limit and before > 0 then return max(0, elapsed_when_carried(before, limit - spent - cost, whole) - elapsed) end
  return whole - elapsed + elapsed_when_carried(min(spent, limit), minus(limit, cost), whole)
end

local function exhausted(book, now)
  return now >= book.start and (not book.sliding or book.unbounded or book.previous ~= nil) and used(book) >= allowance(book, now)
end

local function unmet_of_late(book, now, recent)
  local sum = 0
  for _, line in ipairs(book.lines) do
    if line.turned_away and now - line.heard <= recent then sum = sum + unmet(line) end
  end
  return sum
end

local function part_of(book, line, room, now, recent, far)
  local needs = need(line)
  if needs == 0 then return 0 end
  local waits = unmet(line)
  local all, lines = demand_of_late(book, now, recent)
  local left = minus(allowance(book, now), outstanding(book))
  local beyond = needs - waits
  if far then
    beyond = beyond + floor(left / (FAR_HEADROOM_PARTS * lines))
  else
    beyond = min(beyond, minus(max(1, floor(left / (NEAR_HOLD_PARTS * lines))), unspent(line)))
  end
  local others = minus(unmet_of_late(book, now, recent), line.turned_away and waits or 0)
  beyond = min(beyond, minus(left, others))
  local part = all > 0 and ceil(room * demand(line) / all) or room
  local share = max(1, line.waiting_min, part)
  local amount = min(waits + beyond, share, room)
  if waits > 0 and amount < waits and line.waiting_min > 1 then
    amount = amount - amount % line.waiting_min
    if amount == 0 and room >= line.waiting_min then amount = line.waiting_min end
  end
  return amount
end

function ledger.new_window(terms)
  return {limit = terms.limit, sliding = terms.sliding, unbounded = terms.unbounded, start = terms.start, finish = terms.finish, outstanding = 0,
          used = 0, given = 0, quiet = 0, reset = NO_RESET, reset_at = 0, lines = {}}
end

-- Opens a line that charges `charged`: its floor, or what it holds already of books that are lost.
function ledger.open_window_line(book, key, charged)
  local line = new_line(key)
  line.floor = min(charged, book.limit)
  if book.reset ~= NO_RESET then line.given = UNKNOWN end
  book.lines[#book.lines + 1] = line
  book.outstanding = book.outstanding + line_outstanding(book, line)
  return line
end

function ledger.charge_floor(book, line, charged)
  book.outstanding = book.outstanding - line_outstanding(book, line)
  line.floor = max(line.floor, min(charged, book.limit))
  book.outstanding = book.outstanding + line_outstanding(book, line)
end

-- The line was granted that much, whatever became of the write that said so.
function ledger.hear_granted(book, line, granted)
  if granted <= line.granted then return end
  book.outstanding = book.outstanding - line_outstanding(book, line)
  line.granted = min(granted, AMOUNT_MAX)
  book.outstanding = book.outstanding + line_outstanding(book, line)
end

function ledger.lower_limit(book, limit) book.limit = min(book.limit, limit) end

function ledger.merge_window(book, line, report, ours, now)
  book.outstanding = book.outstanding - line_outstanding(book, line)
  book.used = book.used - net_used(line)
  line.used = max(line.used, min(report.used, AMOUNT_MAX))
  line.refunded = max(line.refunded, min(report.refunded, AMOUNT_MAX))
  if ours then line.returned = max(line.returned, min(report.returned, AMOUNT_MAX)) end
  line.final = line.final or report.final
  take_newest(line, report, ours, now)
  book.outstanding = book.outstanding + line_outstanding(book, line)
  book.used = book.used + net_used(line)
  if not ours then return end
  local given = min(report.given, AMOUNT_MAX)
  if line.given == UNKNOWN then
    if report.reset >= book.reset then line.given = given end
  elseif given > line.given then
    book.given = book.given + min(given - line.given, used(book))
    line.given = given
  end
end

-- Lessees refund all that they used before; what others gave back of that is undone with it.
function ledger.reset_window(book, number)
  book.reset = number
  book.given = 0
  for _, line in ipairs(book.lines) do line.given = UNKNOWN end
end

-- `own`: the book of the window before, nil where there is none; `remembered`: there would be one, had it been used.
function ledger.count_previous(book, own, remembered)
  if not book.sliding then return end
  if own then
    book.previous = min(ledger.as_previous(own), book.limit)
  elseif book.unbounded or remembered then
    book.previous = 0
  end
end

function ledger.as_previous(book)
  local sum = 0
  for _, line in ipairs(book.lines) do
    sum = sum + ((line.final or book.unbounded) and net_used(line) or line_outstanding(book, line))
  end
  return minus(sum, book.given)
end

-- Takes into the line's granted what it may have now of what it asked for.
function ledger.issue_window(book, line, now, recent, far)
  if has_unbounded_floor(book, line) then return 0 end
  line.turned_away = false
  if need(line) == 0 then return 0 end
  local waits = unmet(line)
  local amount = part_of(book, line, minus(allowance(book, now), outstanding(book)), now, recent, far)
  line.turned_away = amount < waits or (waits > 0 and amount == 0)
  book.outstanding = book.outstanding - line_outstanding(book, line)
  line.granted = line.granted + amount
  book.outstanding = book.outstanding + line_outstanding(book, line)
  return amount
end

-- What the line is told. `at`: now, recent, shares_for, sync: microseconds.
function ledger.window_grant(book, line, at)
  local now = at.now
  local allowed = allowance(book, now)
  local grant = {granted = line.granted, used_fleet = used(book), pool = level(minus(allowed, outstanding(book)), book.limit),
                 demand_share = demand_share(book, line, now, at.shares_for), ask_again = 0}
  grant.exhausted = exhausted(book, now) and (book.reset_at == 0 or now - book.reset_at > at.recent)
  grant.stop = grant.exhausted and book.unbounded
  if grant.exhausted then
    grant.ask_again = max(1, regrows_after(book, max(1, line.waiting_min), now))
  elseif line.turned_away then
    grant.ask_again = at.sync
    if allowed <= outstanding(book) then
      for _, other in ipairs(book.lines) do  -- who will not use what it holds is to give it back
        if not other.turned_away and unspent(other) > 0 then other.recalled = true end
      end
    end
  end
  return grant
end

-- ---- buckets --------------------------------------------------------------------------------------------------------------

-- The ledger keeps a lease this much longer than the lessee was told: clocks may run 1 % apart, and a report takes time.
local function kept_lease(length) return length + floor(length * 3 / 100) end

local function unreported(line) return minus(line.granted, line.returned + line.used) end

local function unreported_of(book)
  local sum = 0
  for _, line in ipairs(book.lines) do sum = sum + unreported(line) end
  return sum
end

-- Times count from `now` on.
local function settle(book, now)
  local passed = (now - book.at) * 1000
  book.at = now
  book.tat = book.tat - passed
  for _, line in ipairs(book.lines) do line.finish = line.finish - passed end
  for _, line in ipairs(book.lines) do
    if line.lease ~= 0 and line.finish <= 0 then
      if unreported(line) > 0 then book.tat = max(book.tat, line.finish + unreported_of(book)) end
      line.lease, line.granted, line.used, line.returned = 0, 0, 0, 0
    end
  end
  book.tat = max(book.tat, unreported_of(book))
end

-- `tat`: nanoseconds from now on that are charged already.
function ledger.new_bucket(terms, now, tat, numbered)
  return {emission = terms.emission, span = terms.emission * terms.limit, lease = 0, at = now, tat = tat, base = tat, born = now, leases = numbered, reset = NO_RESET,
          lines = {}}
end

function ledger.use_bucket_terms(book, terms, lease)
  book.emission = terms.emission
  book.span = terms.emission * terms.limit
  book.lease = max(book.lease, lease)
end

function ledger.open_bucket_line(book, key)
  local line = new_line(key)
  line.given = UNKNOWN
  book.lines[#book.lines + 1] = line
  return line
end

function ledger.merge_bucket(book, line, report, ours, now)
  settle(book, now)
  local running = line.lease ~= 0 and report.lease == line.lease and ours
  if take_newest(line, report, running, now) then line.held = running end
  if line.waiting_min ~= 0 then line.waiting_min = max(line.waiting_min, book.emission) end
  if not running then return end
  local returned = min(max(line.returned, report.returned), line.granted)
  local back = returned - line.returned
  line.returned = returned
  line.used = max(line.used, min(report.used, line.granted - returned))
  book.tat = max(book.tat - back, unreported_of(book))
end

-- `given`: all that applications gave back elsewhere since the account began.
function ledger.give_bucket(book, line, given, now)
  if line.given == UNKNOWN then line.given = given end
  if given <= line.given then return end
  settle(book, now)
  book.tat = max(book.tat - min(given - line.given, BUCKET_AMOUNT_MAX), unreported_of(book))
  line.given = given
end

function ledger.reset_bucket(book, now)
  settle(book, now)
  for _, line in ipairs(book.lines) do line.given = UNKNOWN end
  book.tat = max(unreported_of(book), book.base - (now - book.born) * 1000)
end

local function room(book) return max(0, book.span - book.tat) end

local function bucket_part_of(book, line, space, now, recent)
  local needs = need(line)
  if space == 0 or needs == 0 then return 0 end
  local out = unreported_of(book)
  local policy = max(minus(floor(book.span / 2), out), line.waiting_min)
  local all = demand_of_late(book, now, recent)
  local part = all > 0 and ceil(space * demand(line) / all) or space
  local share = max(book.emission, line.waiting_min, part)
  local amount = min(needs, policy, share, space)
  local whole = line.waiting_min ~= 0 and line.waiting_min or book.emission
  if whole > 0 and amount < needs then amount = amount - amount % whole end
  if amount == 0 and space >= whole and out == 0 then amount = whole end
  return amount
end

-- Grants and renews. A lease is renewed even by 0.
function ledger.issue_bucket(book, line, now, recent)
  settle(book, now)
  line.turned_away = false
  local waits = unmet(line)
  local amount = bucket_part_of(book, line, min(room(book), BUCKET_AMOUNT_MAX), now, recent)
  line.turned_away = waits > 0 and amount < waits
  if amount > 0 then
    if line.lease == 0 then
      book.leases = book.leases + 1
      line.lease = book.leases
      line.held = true
      line.granted, line.used, line.returned, line.granted_heard = 0, 0, 0, 0
    end
    book.tat = max(book.tat, 0) + amount
    line.granted = line.granted + amount
  end
  if unreported(line) > 0 and line.held then line.finish = max(line.finish, kept_lease(book.lease)) end
  return amount
end

-- `at`: as of window_grant.
function ledger.bucket_grant(book, line, at)
  settle(book, at.now)
  local cost = max(line.waiting_min, book.emission)
  local left = room(book)
  local grant = {granted = line.granted, used_fleet = 0, lease = line.lease, lease_for = max(0, floor(line.finish * 100 / 103)), tat_ahead = max(0, book.tat),
                 pool = level(left, book.span), demand_share = demand_share(book, line, at.now, at.shares_for), ask_again = 0, stop = false}
  grant.exhausted = left + unreported_of(book) < max(cost, 1)
  local regrows = max(1, ceil(max(0, cost - left) / 1000))
  if grant.exhausted then
    grant.ask_again = regrows
  elseif line.turned_away and left < cost then
    grant.ask_again = min(at.sync, regrows)
  end
  return grant
end

-- Lines that hold nothing and were not heard for `kept` microseconds are forgotten.
function ledger.forget_bucket_lines(book, now, kept)
  local lines = {}
  for _, line in ipairs(book.lines) do
    if line.lease ~= 0 or now - line.heard <= kept then lines[#lines + 1] = line end
  end
  book.lines = lines
end

function ledger.may_open(book) return #book.lines < LINES_MAX end
function ledger.find(book, key) return find(book, key) end
