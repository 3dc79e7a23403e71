"""The eight cases, and the comparison of round trips."""
import time

from fleet import DemoError, Fleet, as_map
from world import (MINUTE, QUARTER, at_least, bound_of, bound_of_rule, limit_of, rule, window_s)


def judge(world, rule_name, admitted, admitted_now, offered):
    report, bound = world.report, bound_of_rule(rule_name)
    report.promise(f"at most {bound} admitted of a limit of {limit_of(rule_name)}: {admitted}, without waiting {admitted_now}",
                   max(admitted, admitted_now) <= bound)
    possible = min(limit_of(rule_name), offered)
    report.promise(f"at least 99 % of the {possible} that could be admitted: {admitted}", admitted >= at_least(0.99, possible))


def doors(world):
    world.report.title("1", "Five doors, 100 people in all; 80 arrive at each at once")
    judge(world, "doors", *world.compare("doors", 5, [80] * 5, 0, 2), offered=400)


def registers(world):
    world.report.title("2", "Five registers, 20 customers at each at once; a limit that they just fit, and half of it")
    for rule_name in ("doors", "tills"):
        judge(world, rule_name, *world.compare(rule_name, 5, [20] * 5, 0, 2), offered=100)


def uneven(world):
    world.report.title("4", "Uneven: ten nodes, 500 requests at node 1 and 500 at node 2 at once, then one more at node 1")
    fleet = world.fleet(10)
    counts = [500, 500] + [0] * 8
    judge(world, "day", *world.compare("day", 10, counts, 0, 3), offered=1000)

    def plan():
        key = world.fresh_key()
        world.plan_take("all", fleet, "day", key, counts)
        world.load.shot(1.0, f"more/{fleet.nodes[0].name}", fleet.nodes[0].name, f"take day {key}")
        return key

    _, outcome = world.in_one_window(4, [MINUTE], plan)
    total = outcome.admitted("all") + outcome.admitted("more")
    world.report.note(f"again, and one more a second later: {outcome.admitted('all')} of the 1000 admitted, "
                      f"the one more {'admitted' if outcome.admitted('more') else 'refused'}")
    world.report.promise(f"with the one more at most {bound_of_rule('day')}: {total}", total <= bound_of_rule("day"))
    if outcome.admitted("all") >= limit_of("day"):
        world.report.promise("the limit is used up, so the one more is refused", outcome.admitted("more") == 0)


def disaster(world):
    world.report.title("5", "Disaster: twenty nodes, 1,000 requests at each within a second, a limit of 1,000 for all")
    judge(world, "day", *world.compare("day", 20, [1000] * 20, 1.0, 4), offered=20_000)


def login_and_api(world):
    world.report.title("6", "Two rules in one fleet: 5 logins per 15 min (strict), 100 API calls per minute (5 %)")
    fleet, alone = world.fleet(5), world.fleet(20, alone=True)
    world.report.note(f"8 logins and 80 calls arrive at each of 5 nodes at once; promised: at most "
                      f"{bound_of_rule('login')} logins and {bound_of_rule('doors')} calls")
    ways = {
        "tallyd": lambda key, name, n: world.plan_take(name, fleet, name, key, [n] * 5),
        "tallyd, wait 0": lambda key, name, n: world.plan_take(name, fleet, f"{name}-now", key, [n] * 5),
        "each door alone": lambda key, name, n: world.plan_take(name, alone, name, key, [n] * 5),
        "one Redis": lambda key, name, n: world.plan_redis(name, name, key, [n] * 5),
    }
    admitted = {}
    for name, plan in ways.items():
        def both(plan=plan):
            key = world.fresh_key()
            plan(key, "login", 8)
            plan(key, "doors", 80)
        _, outcome = world.in_one_window(2, [MINUTE, QUARTER], both)
        admitted[name] = outcome.admitted("login"), outcome.admitted("doors")
        world.report.note(f"{name:<16} logins: offered 40, admitted {admitted[name][0]:>3}   calls: offered 400, "
                          f"admitted {admitted[name][1]:>3}")
    ours = [admitted["tallyd"], admitted["tallyd, wait 0"]]
    for i, rule_name in enumerate(("login", "doors")):
        most = max(a[i] for a in ours)
        world.report.promise(f"{'logins never above 5' if i == 0 else 'calls at most ' + str(bound_of_rule(rule_name))}: {most}",
                             most <= bound_of_rule(rule_name))


KILL_AFTER_S = 0.025  # twenty nodes offer 20,000 a second, so half of the limit has been asked for by then


def owner_killed(world):
    if world.books:
        return redis_killed(world)
    world.report.title("7", "The owner's kill -9 in the middle of the disaster (on_isolation: closed)")
    fleet = world.fleet(20)
    victim = {}

    def plan():
        if "node" in victim:
            raise DemoError("a fleet can lose its owner only once here")
        key = world.fresh_key()
        owner = as_map(fleet.nodes[0].ask("TALLY.EXPLAIN", "day", key))["owner"]
        victim["node"] = owner_node(fleet, owner)
        world.plan_take("x", fleet, "day", key, [1000] * 20, 1.0)
        world.load.kill(KILL_AFTER_S, victim["node"].child.pid)
        return key

    _, outcome = world.in_one_window(5, [MINUTE], plan)
    world.load.forget(victim["node"].name)
    victim["node"].child.kill()
    admitted, bound = outcome.admitted("x"), bound_of_rule("day")
    world.show("tallyd", outcome, "x", [1000] * 20)
    world.report.note(f"{victim['node'].name}, which kept the key's books, was killed after {KILL_AFTER_S * 1000:.0f} ms, when "
                      f"about half of the limit can have been admitted; {outcome.total('x', 'lost')} requests got no answer "
                      f"from it, {outcome.total('x', 'unsent')} found it gone")
    world.report.note("The next member of the key's group has claimed the key. What the owner had under its mark and not granted is lost to "
                      "this minute.")
    world.report.promise(f"at most {bound} admitted, the owner's death included: {admitted}", admitted <= bound)
    world.report.promise(f"at least 90 % of the 1000 that could be admitted: {admitted}", admitted >= 900)


def redis_killed(world):
    world.report.title("7", "Redis's kill -9 in the middle of the disaster; it comes back and has forgotten all (on_isolation: closed)")
    fleet, key, bound = world.fleet(20), world.fresh_key(), bound_of_rule("day")
    world.room_in(30, MINUTE)
    world.plan_take("before", fleet, "day", key, [1000] * 20, 1.0)
    world.load.kill(KILL_AFTER_S, world.books.child.pid)
    first = world.load.run(15)
    world.books.child.kill()
    world.books.start()
    world.wait_for_grants(fleet)
    world.plan_take("after", fleet, "day", key, [100] * 20)
    second = world.load.run(15)
    if first.start_s // MINUTE != second.end_s // MINUTE:
        raise DemoError("the case did not fit into a window: the machine is too slow")
    before, after = first.admitted("before"), second.admitted("after")
    world.report.note(f"killed after {KILL_AFTER_S * 1000:.0f} ms: {before} of the 1000 were admitted while it was away; {after} more when it was back, and the quiet time over")
    world.report.promise(f"at most {bound} admitted, what Redis forgot included: {before + after}", before + after <= bound)
    world.report.promise(f"at least 90 % of the 1000 that could be admitted: {before + after}", before + after >= 900)


def owner_node(fleet, owner):
    """EXPLAIN names the owner as its node or as its entry among the peers."""
    for node in fleet.nodes:
        if owner in (node.name, node.entry):
            return node
    raise DemoError(f"the owner '{owner}' is none of the fleet")


# Cases 3 and 8 are slow by nature (two windows of 20 s); they run at the same time.

TOLL_WINDOW = 20
SYNC_WINDOW = 10
SYNC_RULES = [rule("steady", 1000, SYNC_WINDOW, algorithm="fixed_window", wait="0ms")]
SYNC_INTERVALS_MS = (20, 100, 500)
RELAY_MS = 20
GUARD_S = 0.05  # nothing arrives so near to a window's boundary that two clocks could disagree


def toll_and_sync(world, toll, sync):
    tolls = world.fleet(5) if toll else None
    alone = world.fleet(20, alone=True) if toll else None
    fleets = {}
    if sync:
        for ms in SYNC_INTERVALS_MS:
            path = world.books.behind(RELAY_MS) if world.books else None
            fleets[ms] = Fleet(world.place, 10, SYNC_RULES, sync_ms=ms, delay_ms=RELAY_MS, cluster=world.books_for(f"{ms}ms", path))
            world.wait_for_grants(fleets[ms])
            world.connect(fleets[ms])
        world.report.line(f"[3 x 10 tallyd processes, each fleet behind a relay of {RELAY_MS} ms each way]")
    begin = (time.time() // TOLL_WINDOW + 1) * TOLL_WINDOW
    if begin - time.time() < 1.5:
        begin += TOLL_WINDOW
    world.report.line(f"[waiting {begin - time.time():.0f} s for a window to begin; then "
                      f"{' and '.join(['case 3'] * toll + ['case 8'] * sync)} for {40 if toll else 30} s]")
    # Planning takes a while, and the plan's clock starts with the run: plan relative to a moment of our own.
    start = begin - 0.5
    if toll:
        plan_toll(world, tolls, alone, begin - start)
    if sync:
        plan_sync(world, fleets, begin - start)
    time.sleep(max(0, start - time.time()))
    world.load.begin(60)
    samples = sample_sync(fleets, begin) if sync else {}
    outcome = world.load.finish()
    if outcome.errors():
        raise DemoError(f"the daemon answered: {outcome.errors()[0]}")
    world.report.line(f"[the latest request left {outcome.late_ms:.1f} ms late]")
    if toll:
        report_toll(world, outcome)
    if sync:
        report_sync(world, outcome, samples)
        for fleet in fleets.values():
            fleet.stop()


def plan_toll(world, fleet, alone, first_s):
    world.connect(fleet)
    world.connect(alone)
    world.load.open("redis01", world.redis.socket)
    key = world.fresh_key()
    for car in range(200):
        window, booth = divmod(car, 100)[0], car % 5
        at = first_s + 0.1 + car * 0.2
        for group, nodes, rule_name in (("toll", fleet.nodes, "toll"), ("now", fleet.nodes, "toll-now"),
                                        ("alone", alone.nodes, "toll")):
            world.load.shot(at, f"{group}{window}/{booth + 1}", nodes[booth].name, f"take {rule_name} {key}")
        world.load.shot(at, f"redis{window}/{booth + 1}", "redis01", f"incr toll{window}:{key} 100 {TOLL_WINDOW}")


def report_toll(world, outcome):
    report = world.report
    report.title("3", "Toll booths (fixed window): 100 cars per 20 s over 5 booths, evenly, two windows")
    report.note(f"limit 100 per 20 s, promised: at most {bound_of_rule('toll')}")
    for name, group in (("tallyd", "toll"), ("tallyd, wait 0", "now"), ("each door alone", "alone"), ("one Redis", "redis")):
        text = ""
        for window in (0, 1):
            flows = f"{group}{window}"
            text += (f"   window {window + 1}: {outcome.admitted(flows)} of {outcome.offered(flows)} "
                     f"({' '.join(str(f['admitted']) for f in outcome.flows(flows).values())})")
        report.note(f"{name:<16}{text}")
    counts = [outcome.admitted(f"toll{w}") for w in (0, 1)]
    denied = sum(outcome.offered(f"toll{w}") - outcome.admitted(f"toll{w}") for w in (0, 1))
    report.promise(f"at most {bound_of_rule('toll')} in each window: {max(counts)}",
                   max(counts + [outcome.admitted(f"now{w}") for w in (0, 1)]) <= bound_of_rule("toll"))
    report.promise(f"no car denied: {denied}", denied == 0)


def plan_sync(world, fleets, first_s):
    """Two windows at 92 % of the limit, a third at 130 % under another key; the k-th busiest node gets a share of 1/k."""
    weights = [1 / (k + 1) for k in range(10)]
    for window, (name, count) in enumerate((("under", 920), ("under", 920), ("over", 1300))):
        arrivals = [(first_s + window * SYNC_WINDOW + GUARD_S + world.random.random() * (SYNC_WINDOW - 2 * GUARD_S),
                     world.random.choices(range(10), weights)[0]) for _ in range(count)]
        for ms, fleet in fleets.items():
            for at, node in sorted(arrivals):
                world.load.shot(at, f"s{ms}w{window}/{node + 1}", fleet.nodes[node].name, f"take steady {name}")


def sample_sync(fleets, begin):
    """What the fleets had sent: when the traffic begins, ends its 92 %, and over a quiet stretch afterwards."""
    samples = {}
    for moment, at in (("begin", 0), ("end", 2 * SYNC_WINDOW), ("quiet", 3 * SYNC_WINDOW + 3), ("quiet end", 3 * SYNC_WINDOW + 8)):
        time.sleep(max(0, begin + at - time.time()))
        for ms, fleet in fleets.items():
            samples[moment, ms] = (time.time(), fleet.sum("tallyd_sync_datagrams_total", direction="out"),
                                   fleet.sum("tallyd_sync_bytes_total", direction="out"))
    return samples


def report_sync(world, outcome, samples):
    report, bound = world.report, bound_of(1000, "5%")
    report.title("8", f"Sync intervals side by side: 10 nodes, {RELAY_MS} ms each way, 1,000 per 10 s, uneven traffic, nobody waits")
    report.note(f"promised: at most {bound}. 920 arrive in each of two windows, then 1,300 in a third (another key)")
    report.note("sync      admitted of 920   undercount     of 1,300   overcount     fleet sends, all nodes   of it when quiet")

    def rate(ms, begin, end, field):
        (t0, *a), (t1, *b) = samples[begin, ms], samples[end, ms]
        return (b[field] - a[field]) / (t1 - t0)

    worst = 0
    for ms in SYNC_INTERVALS_MS:
        under = [outcome.admitted(f"s{ms}w{w}") for w in (0, 1)]
        over = outcome.admitted(f"s{ms}w2")
        worst = max([worst, over] + under)
        missed = [100 * (920 - n) / 920 for n in under]
        report.note(f"{ms:>3} ms    {under[0]:>4}, then {under[1]:>4}   {missed[0]:4.1f}, {missed[1]:4.1f} %       {over:>5}   "
                    f"{max(0, over - 1000) / 10:6.1f} %     {rate(ms, 'begin', 'end', 0):6.0f}/s, "
                    f"{rate(ms, 'begin', 'end', 1) / 1000:6.1f} kB/s   {rate(ms, 'quiet', 'quiet end', 0):6.0f}/s, "
                    f"{rate(ms, 'quiet', 'quiet end', 1) / 1000:5.1f} kB/s")
    report.promise(f"at most {bound} in every window at every interval: {worst}", worst <= bound)


def round_trips(world):
    """Median and p99 of one decision after another: a daemon's socket, Redis's, and Redis a millisecond away."""
    world.report.title("", "Round trips: one decision after another over a Unix socket (Redis: INCR + EXPIRE in one write)")
    fleet = world.fleet(5)
    node = fleet.nodes[0]
    world.connect(fleet)
    world.load.open("redis01", world.redis.socket)
    world.load.open("slow1", world.redis.behind(0.5))
    world.room_in(8, window_s("wide"))
    key = world.fresh_key()
    request = f"incr wide:{key} {limit_of('wide')} 60"
    for i in range(3):  # in turns, so that a slow moment of the machine hits all alike
        at = i * 1.4
        world.load.shot(at, "tallyd/x", node.name, f"take wide {key}", 4000, 1)
        world.load.shot(at + 0.3, "redis/x", "redis01", request, 4000, 1)
        world.load.shot(at + 0.6, "slow/x", "slow1", request, 500, 1)
    outcome = world.load.run(20)
    for name, group in (("tallyd (one of a fleet of five)", "tallyd"), ("Redis", "redis"), ("Redis, 1 ms round trip away", "slow")):
        median, p99, _ = outcome.latency(group)
        world.report.note(f"{name:<32} median {median * 1000:7.1f} us   p99 {p99 * 1000:7.1f} us")
