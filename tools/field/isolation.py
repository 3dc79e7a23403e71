#!/usr/bin/env python3
"""What a fleet admits while it is cut apart, by the rules' `on_isolation`, and when contact returns.

Six hosts, nine rules (two with fixed windows, strict and 5 %, and a sliding one, each under closed, share and open), five windows: one of the whole
fleet, one with the cut in it, one apart, one in which contact returns, one of the whole fleet. On either side of the cut 1.5 times the limit is asked for
all the time. The promises are the daemons' own (`bound` and `bound_isolated` of TALLY.EXPLAIN), held against the documented ones.
"""
from fleet import DemoError, as_map
from hosts import HostFleet, on_hosts
from network import Network, Unavailable
from rows import at_least, at_most, holds, shown
from timeline import Timeline, undisturbed
from world import bound_of

HOSTS = [f"h{n}" for n in range(1, 7)]
LIMIT, WINDOW_S, PRESSURE = 200, 10, 1.5  # the last: asked for on each side, of the limit
WAIT_MS, WAIT_SPARE_MS = 100, 60  # the second: what this machine may add to an answer
POLICIES = ("closed", "share", "open")
KINDS = {"strict": {"max_overcount": 0}, "5%": {"max_overcount": "5%"}, "sliding": {"max_overcount": "5%", "algorithm": "sliding_window"}}
CUT, HEAL, SETTLED = 13, 34, 35.5  # seconds from the begin; by the last, who was cut off has told what it used
PHASES = {"before": (0, 10), "uncut": (10, CUT), "cut": (CUT, 20), "apart": (20, 30), "still": (30, HEAL), "healing": (HEAL, SETTLED),
          "settled": (SETTLED, 40), "after": (40, 50)}
WINDOWS = {"before": ["before"], "cutting": ["uncut", "cut"], "apart": ["apart"], "contact": ["still", "healing", "settled"], "after": ["after"]}
WHOLE, APART = ("before", "after"), ("cutting", "apart", "contact")
APART_PART, AFTER_PART = 90, 95  # % of L, where more is asked for: apart an owner's loss may cost a sixteenth
ISOLATED = 3        # the reason in an answer
METRIC = "tallyd_isolated_decisions_total"


def promised(rule):
    """(bound, bound isolated) of a rule, as the documentation has them."""
    bound = bound_of(LIMIT, rule["max_overcount"])
    return bound, bound + {"closed": 0, "share": LIMIT, "open": LIMIT * len(HOSTS)}[rule["on_isolation"]]


def rules():
    return [{"name": f"{kind}-{policy}", "algorithm": "fixed_window", "limit": LIMIT, "window": f"{WINDOW_S}s", "wait": f"{WAIT_MS}ms",
             "on_isolation": policy, **more} for kind, more in KINDS.items() for policy in POLICIES]


class Key:
    """`group`: the hosts that keep it, its natural owner first."""

    def __init__(self, name, group):
        self.name, self.group = name, group


def keys_of(ground, fleet, rule, wanted):
    """A fresh key for each of the predicates on a group."""
    found = []
    for is_wanted in wanted:
        for _ in range(10_000):
            key = ground.fresh_key()
            told = as_map(fleet.nodes[0].ask("TALLY.EXPLAIN", rule, key))
            group = [fleet.by_entry(entry).host for entry in told["group"]]
            if is_wanted(group):
                found.append(Key(key, group))
                break
        else:
            raise DemoError("no key of such a group was found")
    return found


class Partition:
    """`sides`: the hosts that are together, each side under its own load; `cut(network)` makes it."""

    def __init__(self, name, cut, sides):
        self.name, self.cut, self.sides = name, cut, sides

    def keys(self, ground, fleet, rule):
        """Keys of all kinds of groups: which side has most of one, and on which side the natural owner is; a host alone may have no part in it."""
        some, others = self.sides
        if len(others) == 1:
            alone = others[0]
            return keys_of(ground, fleet, rule, [lambda g: g[0] == alone, lambda g: alone in g[1:], lambda g: alone not in g])
        return keys_of(ground, fleet, rule, [lambda g, most=most, first=first: sum(h in most for h in g) >= 2 and g[0] in first
                                             for most in self.sides for first in self.sides])

    def strong(self, key):
        """The side with a majority of the key's group."""
        return max(self.sides, key=lambda side: sum(host in side for host in key.group))

    def weak(self, key):
        return min(self.sides, key=lambda side: sum(host in side for host in key.group))


def side(hosts):
    return ",".join(hosts)


# One way in the last three: who is cut off can still be heard, or still hears.
LEFT, RIGHT = HOSTS[:3], HOSTS[3:]
ALONE, REST = HOSTS[2:3], HOSTS[:2] + HOSTS[3:]
PARTITIONS = {
    "halves": Partition("3 and 3", lambda net: net.split(side(LEFT), side(RIGHT)), (LEFT, RIGHT)),
    "alone": Partition("one alone", lambda net: net.split(side(REST), side(ALONE)), (REST, ALONE)),
    "deaf": Partition("one hears nothing", lambda net: net.cut(side(REST), side(ALONE)), (REST, ALONE)),
    "mute": Partition("one is not heard", lambda net: net.cut(side(ALONE), side(REST)), (REST, ALONE)),
    "one-way": Partition("3 do not hear the other 3", lambda net: net.cut(side(LEFT), side(RIGHT)), (LEFT, RIGHT)),
}


class Run:
    """One partition of a running fleet."""

    def __init__(self, ground, fleet, partition, title):
        self.fleet, self.partition, self.title = fleet, partition, title
        self.keys = {rule["name"]: partition.keys(ground, fleet, rule["name"]) for rule in fleet.rules}
        self.bounds = {}
        self.counts = []  # of the metric, {(rule, host): value}, before the cut, at its end, after
        self.line = Timeline(ground.place, WINDOW_S, PHASES, ground.random.random())
        for rule, keys in self.keys.items():
            told = as_map(fleet.nodes[0].ask("TALLY.EXPLAIN", rule, keys[0].name))
            self.bounds[rule] = told["bound"], told["bound_isolated"]
            expected = promised(next(each for each in fleet.rules if each["name"] == rule))
            if self.bounds[rule] != expected:
                raise DemoError(f"EXPLAIN says that {rule} has the bounds {self.bounds[rule]}, and they are {expected}")
            for key in keys:
                for hosts in partition.sides:
                    for node in fleet.on(hosts):
                        self.line.ask(rule, key.name, node, PRESSURE * LIMIT / WINDOW_S / len(hosts))
        self.line.at(CUT - 0.5, self.count)
        self.line.at(CUT, lambda: partition.cut(fleet.network))
        self.line.at(30, self.count)
        self.line.at(HEAL, lambda: fleet.network.join("*", "*"))
        self.line.at(40, self.count)
        self.line.at(49.9, self.count)
        self.line.run()

    def count(self):
        self.counts.append({(labels["rule"], node.host): value for node in self.fleet.nodes
                            for name, labels, value in node.metrics() if name == METRIC})

    def risen(self, rule, since, until, hosts=HOSTS):
        return sum(self.counts[until][rule, host] - self.counts[since][rule, host] for host in hosts)

    def admitted(self, rule, key, window, **which):
        return self.line.admitted(rules=[rule], keys=[key.name], phases=WINDOWS[window], **which)

    def too_many_after_contact(self, rule, key, bound):
        """What was admitted once all had told what they used, beyond what that left of the bound."""
        earlier, later = (self.line.admitted(rules=[rule], keys=[key.name], phases=phases) for phases in (["still", "healing"], ["settled"]))
        return later - max(0, bound - earlier)

    def rows(self):
        for rule, keys in self.keys.items():
            yield from self.rows_of(f"{self.title}, {rule}", rule, keys)

    def rows_of(self, case, rule, keys):
        bound, bound_isolated = self.bounds[rule]
        line, weak, strong = self.line, self.partition.weak, self.partition.strong
        yield at_most(case, "whole fleet, admitted in a window", bound, [self.admitted(rule, key, w) for key in keys for w in WHOLE])
        yield at_most(case, "cut, admitted in a window, the bound isolated", bound_isolated,
                      [self.admitted(rule, key, w) for key in keys for w in APART])
        yield at_least(case, "apart, admitted of L", APART_PART, [100 * self.admitted(rule, key, "apart") / LIMIT for key in keys], "%")
        for where, which in (("most of the group", strong), ("the rest", weak)):
            yield shown(case, f"apart, admitted of L where {where} is", [100 * self.admitted(rule, key, "apart", hosts=which(key)) / LIMIT for key in keys], "%")
        yield at_most(case, "admitted later than 1.5 s after contact, beyond what was left of the bound", 0,
                      [self.too_many_after_contact(rule, key, bound) for key in keys])
        yield at_least(case, "admitted of L in the window after", AFTER_PART, [100 * self.admitted(rule, key, "after") / LIMIT for key in keys], "%")
        yield holds(case, "answers with reason 3 (isolated) apart, none in whole windows",
                    [line.reason(ISOLATED, rules=[rule], phases=["apart"]) > 0 or rule.endswith("open"), line.reason(ISOLATED, rules=[rule], phases=WHOLE) == 0])
        yield holds(case, f"{METRIC} rises, and not in whole windows", [self.risen(rule, 0, 1) > 0, self.risen(rule, 2, 3) == 0])
        yield at_most(case, f"longest answer ({WAIT_MS} ms of wait), less what the load was late", WAIT_MS + WAIT_SPARE_MS,
                      [line.longest_ms(rules=[rule]) - line.outcome.late_ms], "ms")


def partitioned(ground, name, partition, ipv6=False):
    ground.say(f"{name}: {partition.name}; five windows of {WINDOW_S} s")
    with Network(HOSTS) as network:
        if ipv6 and not network.has_ipv6:
            raise Unavailable("no IPv6 in this kernel")
        fleet = HostFleet(ground.place, network, rules(), ipv6=ipv6)
        try:
            yield from undisturbed(ground.say, lambda: Run(ground, fleet, partition, name)).rows()
        finally:
            fleet.stop()


def cases():
    for name, partition in PARTITIONS.items():
        yield name, on_hosts(name, lambda ground, name=name, partition=partition: partitioned(ground, name, partition)), f"cut: {partition.name}"
    yield "ipv6", on_hosts("ipv6", lambda ground: partitioned(ground, "ipv6", PARTITIONS["halves"], ipv6=True)), "halves, with entries as [fd00::1]:8381"


CASES = {name: (measure, what) for name, measure, what in cases()}
