"""Repetitions on running fleets, with keys and timings drawn from one seed; and two closer looks at small and quiet keys."""
import time

from fleet import DemoError
from world import MINUTE, QUARTER, RULES, bound_of_rule, limit_of, rule, with_and_without_wait

ENTRIES = ("report", "grant", "mark", "accepted")  # what is said about keys; the rest is gossip


class Tally:
    """What the repetitions of one case and rule admitted."""

    def __init__(self, rule_name, offered):
        self.rule, self.limit, self.bound = rule_name, limit_of(rule_name), bound_of_rule(rule_name)
        self.possible = min(self.limit, offered)
        self.waiting, self.now = [], []

    def add(self, waiting, now):
        self.waiting.append(waiting)
        self.now.append(now)

    def above(self):
        return sum(1 for n in self.waiting + self.now if n > self.bound)

    def text(self):
        def percents(counts):
            p = sorted(100 * n / self.possible for n in counts)
            short = sum(1 for each in p if each < 99)
            return (f"min {p[0]:5.1f}  median {p[len(p) // 2]:5.1f}  mean {sum(p) / len(p):5.1f}  max {p[-1]:5.1f} %"
                    f"  ({short} windows below 99 %)")
        return [f"{self.rule}: {len(self.waiting)} windows with waiting, {len(self.now)} without, {self.above()} above {self.bound}",
                f"   admitted of the {self.possible} possible, waiting  {percents(self.waiting)}",
                f"   admitted of the {self.possible} possible, wait 0   {percents(self.now)}"]


def bursts(world, group, fleet, rule_name, key, counts, spread_s):
    """`counts` at the nodes, in groups of 1 to 20 at drawn moments; the whole at once where spread_s is 0."""
    world.connect(fleet)
    for node, left in zip(fleet.nodes, counts):
        while left:
            n = left if spread_s == 0 else min(left, world.random.randint(1, 20))
            world.load.shot(world.random.random() * spread_s, f"{group}/{node.name}", node.name, f"take {rule_name} {key}", n)
            left -= n


# case: (nodes, windows that must not end meanwhile, longest spread, {rule: requests at each node})
REPEATED = {
    "1": (5, [MINUTE], 0.05, {"doors": [80] * 5}),
    "2": (5, [MINUTE], 0.05, {"doors": [20] * 5, "tills": [20] * 5}),
    "4": (10, [MINUTE], 0.5, {"day": [500, 500] + [0] * 8}),
    "5": (20, [MINUTE], 1.0, {"day": [1000] * 20}),
    "6": (5, [MINUTE, QUARTER], 0.05, {"login": [8] * 5, "doors": [80] * 5}),
}


def repeat(world, cases, times):
    unknown = [c for c in cases if c not in REPEATED]
    if unknown:
        raise DemoError(f"only the cases {', '.join(REPEATED)} can be repeated, not {', '.join(unknown)}")
    for case in cases:
        nodes, windows, spread_max, counts = REPEATED[case]
        fleet = world.fleet(nodes)
        world.report.title(case, f"{times} repetitions of case {case}, seed {world.seed}")
        tallies = {name: Tally(name, sum(each)) for name, each in counts.items()}
        for _ in range(times):
            repeat_once(world, fleet, windows, spread_max, counts, tallies)
        for each in tallies.values():
            for line in each.text():
                world.report.note(line)
        for name, each in tallies.items():
            kind = "a strict rule: never above its limit" if each.bound == each.limit else "no window above its bound"
            world.report.promise(f"{name}, {kind} of {each.bound}: {each.above()} of {2 * times} windows above",
                                 each.above() == 0)


def repeat_once(world, fleet, windows, spread_max, counts, tallies):
    spread = world.random.choice([0, world.random.random() ** 2 * spread_max])

    def plan():
        for name, each in counts.items():
            bursts(world, f"{name}:wait", fleet, name, world.fresh_key(), each, spread)
            bursts(world, f"{name}:now", fleet, f"{name}-now", world.fresh_key(), each, spread)

    _, outcome = world.in_one_window(spread + 1.5, windows, plan)
    for name, each in tallies.items():
        each.add(outcome.admitted(f"{name}:wait"), outcome.admitted(f"{name}:now"))


SMALL_LIMITS = (10, 60, 100)
SMALL_RULES = RULES + [each for limit in SMALL_LIMITS for each in with_and_without_wait(f"small{limit}", limit, MINUTE)]
SMALL_KEYS = 50


def entries_sent(fleet):
    return sum(fleet.sum("tallyd_sync_entries_total", direction="out", kind=kind) for kind in ENTRIES)


def settled_entries(fleet, quiet_s=0.6):
    """The counter once it has stood still over several sync intervals."""
    before = entries_sent(fleet)
    for _ in range(20):
        time.sleep(quiet_s)
        now = entries_sent(fleet)
        if now == before:
            return now
        before = now
    raise DemoError("the fleet does not come to rest")


def small_limits(world):
    """Limits whose floor is 0 or 1 at ten nodes: what waiting and entries they cost, and whom they turn away wrongly."""
    report, fleet = world.report, world.fleet(10, rules=SMALL_RULES, name="small")
    report.title("small", f"Small limits on ten nodes: {SMALL_KEYS} keys each, L requests to each key over a second, from all nodes")
    report.note("  L   floors (5 %)    wait     offered  denied    entries/key   waited          mean wait   granted / in vain")
    for limit in SMALL_LIMITS:
        budget = limit // 20
        floors = "all 0" if budget == 0 else f"{budget} x 1, {10 - budget} x 0"
        for suffix, wait in (("", "20 ms"), ("-now", "0")):
            small_row(world, fleet, limit, f"small{limit}{suffix}", floors, wait)


def small_row(world, fleet, limit, rule_name, floors, wait):
    def waits():
        return {outcome: (fleet.sum("tallyd_wait_duration_seconds_count", outcome=outcome),
                          fleet.sum("tallyd_wait_duration_seconds_sum", outcome=outcome))
                for outcome in wait_outcomes(fleet)}

    def plan():
        world.connect(fleet)
        for k in range(SMALL_KEYS):
            key = world.fresh_key()
            for _ in range(limit):
                node = world.random.choice(fleet.nodes)
                world.load.shot(world.random.random(), f"k{k}/x", node.name, f"take {rule_name} {key}")

    world.room_in(6, MINUTE)
    sent, waited = settled_entries(fleet), waits()
    _, outcome = world.in_one_window(2, [MINUTE], plan)
    sent = settled_entries(fleet) - sent
    after = waits()
    counts = {o: after[o][0] - waited.get(o, (0, 0))[0] for o in after}
    total = sum(counts.values())
    seconds = sum(after[o][1] - waited.get(o, (0, 0))[1] for o in after)
    offered = SMALL_KEYS * limit
    admitted = [outcome.admitted(f"k{k}") for k in range(SMALL_KEYS)]
    denied = offered - sum(admitted)
    in_vain = sum(n for o, n in counts.items() if o not in ("granted", "admitted"))
    world.report.note(f"{limit:>3}   {floors:<13}   {wait:<6} {offered:>8}  {denied:>6} ({100 * denied / offered:4.1f} %)"
                      f"   {sent / SMALL_KEYS:8.1f}   {total:>6.0f} ({100 * total / offered:4.1f} %)"
                      f"   {1000 * seconds / total if total else 0:6.2f} ms   {total - in_vain:.0f} / {in_vain:.0f}")
    bound = limit + limit // 20
    world.report.promise(f"limit {limit}, wait {wait}: no key above {bound}, at most {max(admitted)}", max(admitted) <= bound)


def wait_outcomes(fleet):
    return {labels.get("outcome", "") for node in fleet.nodes for name, labels, _ in node.metrics()
            if name == "tallyd_wait_duration_seconds_count"}


def quiet_keys(world):
    """Keys that stay under their floor must cost no message."""
    report, fleet, count = world.report, world.fleet(10), 10_000
    report.title("quiet", f"{count} keys, each hit once at one node, under a rule with a floor of 5 there")
    node = fleet.nodes[0]
    world.connect(fleet)
    world.room_in(15, MINUTE)
    before = settled_entries(fleet)
    keys = [world.fresh_key() for _ in range(count)]
    for i, key in enumerate(keys):
        world.load.shot(i * 1e-4, "q/x", node.name, f"take day {key}")
    outcome = world.load.run(20)
    after = settled_entries(fleet)
    report.note(f"admitted {outcome.admitted('q')} of {count}; entries sent by all nodes before {before:.0f}, after {after:.0f}")
    report.promise(f"no entry sent for quiet keys: {after - before:.0f}", after == before and outcome.admitted("q") == count)
