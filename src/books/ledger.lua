-- The owner's rules over books that are kept in Redis: what cluster/window_book.cc and cluster/bucket_book.cc say, where no marks are
-- needed, as one place has all books. tests/books_ledger_test.cc holds both against each other.
--
-- Pure functions of tables. Numbers are doubles: every amount and time is a whole number below 2^53, or was capped. Times are
-- microseconds of one clock, but for a bucket's, which are nanoseconds from book.at on. Cumulative numbers are merged by max,
-- so a report that is applied twice, or late, changes nothing.
--
-- A window's book: limit, sliding, unbounded, start, finish (of the window), previous (of the window before; absent: not known, all of the
-- limit), quiet (nothing is issued before), order and order_until (that its limit goes by), given, lines, and sums over these: outstanding,
-- used, idle (what lines that are final were issued and have not used).
-- A bucket's book: emission, span, lease, at, tat (both as in GCRA), leases (the last number given out), born and base (since when, and
-- what was charged then), order and order_until, lines, and a sum over these: unreported (what running leases were granted and is not
-- known to be used).
-- A line: key (node, life, number; 20 bytes), number (its place among the lines), and what cluster/line.h says. In books that were read a
-- line is nil until it is needed (format.lua): `found` has those that are not, by key, `count` says how many lines there are, and `late`
-- has what is needed of all of them.
local ledger = {}

local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min

local AMOUNT_MAX = 2 ^ 40           -- no honest cost is larger
local BUCKET_AMOUNT_MAX = 2 ^ 52    -- nor amount of nanoseconds, where numbers are exact
local LINES_MAX = 4096
local NO_RESET = ("0"):rep(16)      -- resets have 16 hexadecimal digits: the nanosecond of a wall clock
local UNKNOWN = -1                  -- of what a line gave back: its next report tells from where to count
local NEAR_HOLD_PARTS = 8           -- see cluster/window_book.cc
local FAR_HEADROOM_PARTS = 4
local NEWCOMERS_PARTS = 10          -- of a window granted ahead, a tenth is held back for newcomers
local AHEAD_INTERVALS = 3           -- of what a line is expected to use, so many sync intervals are granted ahead

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
  return {key = key, number = 0, floor = 0, granted = 0, returned = 0, refunded = 0, given = 0, used = 0, stamp = 0, ceiling = 0, granted_heard = 0,
          wanted = 0, waiting_min = 0, waiting = 0, demand_milli = 0, heard = 0, turned_away = false, final = false, recalled = false, lease = 0,
          held = false, finish = 0}
end

local function add(book, key)
  local line = new_line(key)
  book.count = book.count + 1
  line.number = book.count
  book.lines[book.count] = line
  book.found[key] = line
  return line
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

-- When a line wanted something last (0: it does not), its demand, and what it was refused.
local function lately(line)
  if line.demand_milli == 0 and line.waiting == 0 then return 0, 0, 0 end
  return line.heard, demand(line), line.turned_away and unmet(line) or 0
end

-- Of the lines heard within that time: their demand, how many have any, and what they were refused.
local function of_late(book, now, within)
  local all, wanting, refused = 0, 0, 0
  local lines, late = book.lines, book.late
  for i = 1, book.count do
    local line = lines[i]
    local at, its, missed
    if line then
      at, its, missed = lately(line)
    else
      at, its, missed = late[3 * i - 2], late[3 * i - 1], late[3 * i]
    end
    if at ~= 0 and now - at <= within then
      all, wanting, refused = all + its, wanting + 1, refused + missed
    end
  end
  return all, max(1, wanting), refused
end

local function demand_share(book, line, now, within)
  local all = of_late(book, now, within)
  if all <= 0 then return 0 end
  return floor(min(1, demand(line) / all) * 65535)
end

-- What a limit that a report states is to books, by the operator's order for the key that it goes by (order: its number, 0: none;
-- order_until: until when others are to give way to it). "new": it holds from now on; "same": of what the books go by; nil: of an order
-- that was replaced or has ended.
local function heard_order(book, report, now)
  if report.order ~= 0 and now >= report.order_until then return nil end
  if report.order > book.order or (book.order ~= 0 and now >= book.order_until) then
    book.order, book.order_until = report.order, report.order_until
    return "new"
  end
  return report.order == book.order and "same" or nil
end

-- ---- windows --------------------------------------------------------------------------------------------------------------

local function has_unbounded_floor(book, line) return book.unbounded and line.floor > 0 and line.returned == 0 end

local function line_outstanding(book, line)
  if has_unbounded_floor(book, line) then return net_used(line) end
  return max(minus(line.floor + line.granted, line.returned), net_used(line))
end

-- The book's sums without the line, which changes, and with it again.
local function leave_out(book, line)
  local issued, used = line_outstanding(book, line), net_used(line)
  book.outstanding = book.outstanding - issued
  book.used = book.used - used
  if line.final then book.idle = book.idle - (issued - used) end
end
local function count_in(book, line)
  local issued, used = line_outstanding(book, line), net_used(line)
  book.outstanding = book.outstanding + issued
  book.used = book.used + used
  if line.final then book.idle = book.idle + (issued - used) end
end

local function outstanding(book) return minus(book.outstanding, book.given) end
local function used(book) return minus(book.used, book.given) end

local function previous(book) return min(book.previous or book.limit, book.limit) end

local function allowance(book, now)
  if now < book.start then return book.sliding and 0 or book.limit - floor(book.limit / NEWCOMERS_PARTS) end
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

local function exhausted(book, now, allowed)
  return now >= book.start and (not book.sliding or book.unbounded or book.previous ~= nil) and used(book) >= allowed
end

local function part_of(book, line, room, now, recent, far)
  local needs = need(line)
  if needs == 0 then return 0 end
  local waits = unmet(line)
  local all, wanting, refused = of_late(book, now, recent)
  local beyond = needs - waits
  if far then
    beyond = beyond + floor(room / (FAR_HEADROOM_PARTS * wanting))
  else
    beyond = min(beyond, minus(max(1, floor(room / (NEAR_HOLD_PARTS * wanting))), unspent(line)))
  end
  local others = minus(refused, line.turned_away and waits or 0)
  beyond = min(beyond, minus(room, others))
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
          used = 0, idle = 0, given = 0, quiet = 0, reset = NO_RESET, reset_at = 0, order = 0, order_until = 0, count = 0, lines = {}, found = {}, late = {}}
end

-- Opens a line that charges `charged`: its floor, or what it holds already of books that are lost.
function ledger.open_window_line(book, key, charged)
  local line = add(book, key)
  line.floor = min(charged, book.limit)
  if book.reset ~= NO_RESET then line.given = UNKNOWN end
  count_in(book, line)
  return line
end

function ledger.charge_floor(book, line, charged)
  leave_out(book, line)
  line.floor = max(line.floor, min(charged, book.limit))
  count_in(book, line)
end

-- What the line holds of books before these is less than it was opened with, as it gave some of it back.
function ledger.lower_floor(book, line, held)
  leave_out(book, line)
  line.floor = min(line.floor, held)
  count_in(book, line)
end

-- The line was granted that much, whatever became of the write that said so.
function ledger.hear_granted(book, line, granted)
  if granted <= line.granted then return end
  leave_out(book, line)
  line.granted = min(granted, AMOUNT_MAX)
  count_in(book, line)
end

-- The smallest limit that reports state under one order.
function ledger.hear_limit(book, report, now)
  local is = heard_order(book, report, now)
  if is == "new" then book.limit = report.limit end
  if is == "same" then book.limit = min(book.limit, report.limit) end
end

function ledger.merge_window(book, line, report, ours, now)
  leave_out(book, line)
  line.used = max(line.used, min(report.used, AMOUNT_MAX))
  line.refunded = max(line.refunded, min(report.refunded, AMOUNT_MAX))
  if ours then line.returned = max(line.returned, min(report.returned, AMOUNT_MAX)) end
  line.final = line.final or report.final
  take_newest(line, report, ours, now)
  count_in(book, line)
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
  for _, line in ipairs(ledger.all_lines(book)) do line.given = UNKNOWN end
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

-- Of lines that are final what they used, of others what they were issued; where nothing limits issuing, of all what they used.
function ledger.as_previous(book)
  return minus(book.unbounded and book.used or book.outstanding - book.idle, book.given)
end

-- Takes into the line's granted what it may have now of what it asked for.
function ledger.issue_window(book, line, now, recent, far)
  if has_unbounded_floor(book, line) then return 0 end
  line.turned_away = false
  if need(line) == 0 then return 0 end
  local waits = unmet(line)
  local amount = part_of(book, line, minus(allowance(book, now), outstanding(book)), now, recent, far)
  line.turned_away = amount < waits or (waits > 0 and amount == 0)
  if amount == 0 then return 0 end
  leave_out(book, line)
  line.granted = line.granted + amount
  count_in(book, line)
  return amount
end

-- Takes into the line's granted what is left of `amount`, before the window begins.
function ledger.issue_ahead(book, line, amount, now)
  amount = min(amount, minus(allowance(book, now), outstanding(book)))
  leave_out(book, line)
  line.granted = line.granted + amount
  count_in(book, line)
  return amount
end

-- What the line of a fixed window is to have of the next one, `coming`, when that begins. `at`: as below.
function ledger.expected_ahead(book, line, coming, at)
  if used(book) == 0 then return 0 end
  local all, own = of_late(book, at.now, at.recent), demand(line)
  if all <= 0 then return 0 end
  return floor(min(own * AHEAD_INTERVALS * at.sync / 1e6, allowance(coming, at.now) * own / all))
end

-- What the line is told. `at`: now, recent, shares_for, sync: microseconds. `recalls`: lines that are to give back, and were not told yet.
function ledger.window_grant(book, line, at)
  local now = at.now
  local allowed = allowance(book, now)
  local grant = {granted = line.granted, used_fleet = used(book), pool = level(minus(allowed, outstanding(book)), book.limit),
                 demand_share = demand_share(book, line, now, at.shares_for), exhausted = false, stop = false, ask_again = 0, recalls = {}}
  grant.exhausted = exhausted(book, now, allowed) and (book.reset_at == 0 or now - book.reset_at > at.recent)
  grant.stop = grant.exhausted and book.unbounded
  if grant.exhausted then
    grant.ask_again = max(1, regrows_after(book, max(1, line.waiting_min), now))
  elseif line.turned_away then
    grant.ask_again = at.sync
    if allowed <= outstanding(book) then
      for _, other in ipairs(ledger.all_lines(book)) do  -- who will not use what it holds is to give it back
        if not other.turned_away and not other.recalled and unspent(other) > 0 then
          other.recalled = true
          grant.recalls[#grant.recalls + 1] = other
        end
      end
    end
  end
  return grant
end

-- ---- buckets --------------------------------------------------------------------------------------------------------------

-- The ledger keeps a lease this much longer than the lessee was told: clocks may run 1 % apart, and a report takes time.
local function kept_lease(length) return length + floor(length * 3 / 100) end

local function unreported(line) return minus(line.granted, line.returned + line.used) end

function ledger.sum_up_bucket(book)
  book.unreported = 0
  for _, line in ipairs(book.lines) do book.unreported = book.unreported + unreported(line) end
end

-- Times count from `now` on.
local function settle(book, now)
  local passed = (now - book.at) * 1000
  if passed == 0 then return end
  book.at = now
  book.tat = book.tat - passed
  for _, line in ipairs(book.lines) do line.finish = line.finish - passed end
  for _, line in ipairs(book.lines) do
    if line.lease ~= 0 and line.finish <= 0 then
      if unreported(line) > 0 then book.tat = max(book.tat, line.finish + book.unreported) end
      book.unreported = book.unreported - unreported(line)
      line.lease, line.granted, line.used, line.returned = 0, 0, 0, 0
    end
  end
  book.tat = max(book.tat, book.unreported)
end

-- `tat`: nanoseconds from now on that are charged already.
function ledger.new_bucket(terms, now, tat, numbered)
  return {emission = terms.emission, span = terms.emission * terms.limit, lease = 0, at = now, tat = tat, base = tat, born = now, leases = numbered, reset = NO_RESET,
          order = 0, order_until = 0, unreported = 0, count = 0, lines = {}, found = {}, late = {}}
end

function ledger.use_bucket_terms(book, report, lease, now)
  if heard_order(book, report, now) then
    book.emission = report.emission
    book.span = report.emission * report.limit
  end
  book.lease = max(book.lease, lease)
end

function ledger.open_bucket_line(book, key)
  local line = add(book, key)
  line.given = UNKNOWN
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
  book.unreported = book.unreported - unreported(line)
  line.returned = returned
  line.used = max(line.used, min(report.used, line.granted - returned))
  book.unreported = book.unreported + unreported(line)
  book.tat = max(book.tat - back, book.unreported)
end

-- `given`: all that applications gave back elsewhere since the account began.
function ledger.give_bucket(book, line, given, now)
  if line.given == UNKNOWN then line.given = given end
  if given <= line.given then return end
  settle(book, now)
  book.tat = max(book.tat - min(given - line.given, BUCKET_AMOUNT_MAX), book.unreported)
  line.given = given
end

function ledger.reset_bucket(book, now)
  settle(book, now)
  for _, line in ipairs(book.lines) do line.given = UNKNOWN end
  book.tat = max(book.unreported, book.base - (now - book.born) * 1000)
end

local function room(book) return max(0, book.span - book.tat) end

local function bucket_part_of(book, line, space, now, recent)
  local needs = need(line)
  if space == 0 or needs == 0 then return 0 end
  local out = book.unreported
  local policy = max(minus(floor(book.span / 2), out), line.waiting_min)
  local all = of_late(book, now, recent)
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
    book.unreported = book.unreported + amount
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
                 pool = level(left, book.span), demand_share = demand_share(book, line, at.now, at.shares_for), exhausted = false, stop = false, ask_again = 0}
  grant.exhausted = left + book.unreported < max(cost, 1)
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
    if line.lease ~= 0 or now - line.heard <= kept then
      lines[#lines + 1] = line
    else
      book.found[line.key] = nil
    end
  end
  book.lines, book.count = lines, #lines
end

function ledger.may_open(book) return book.count < LINES_MAX end
ledger.lately, ledger.new_line = lately, new_line
