"""Two regions of three aggregators and five guests each, and a world of three above them: what all admit together, and what a lost link or node costs.

One start for all parts. Each part is a few windows under load that is planned beforehand; beside it a probe asks in each region for a key of its own, far below
its limit, so that each denial is a failure, and its answers have times. The promises about limits are held against the documentation.
"""
import contextlib
import time

from fleet import DemoError, as_map
from ground import questions
from hosts import PORT, HostFleet, on_hosts
from network import Network
from rows import at_least, at_most, holds, shown
from timeline import Timeline, undisturbed

REGIONS = ("a", "b")
AGGREGATORS, EDGES = 3, 5
ROUND_TRIP_MS = 60         # between any two places; within one there is what the machine takes
PLACES = (*REGIONS, "c")   # the world has a host in each, so that losing any one place leaves it a majority
LIMIT, WINDOW_S, WAIT_MS = 1000, 10, 300
END_GUARD_S = 0.4          # of a window without requests: longer than WAIT_MS
PRESSURE = 1.5             # of the limit, asked for in each region
PROBE_RATE = 40            # a second and region: 80 % of the limit in all
ADMITTED, AFTER_DEATH = 95, 90  # % of L in a window; the second where one dies that had drawn
AFTER_DEATH_FAR = 80  # where it had raised its mark: by three times what is asked for in two round trips and a sync interval, here a fifth of L
NO_GRANT, ISOLATED = 2, 3  # reasons in an answer
METRIC = "tallyd_isolated_decisions_total"
E_REGION, E_ALL = "2.5%", 0.05  # floors add up over the regions

FIXED = {"algorithm": "fixed_window", "limit": LIMIT, "window": f"{WINDOW_S}s", "max_overcount": 0, "on_isolation": "closed", "wait": f"{WAIT_MS}ms"}
RULES = [{"name": "strict", **FIXED}, {"name": "5%", **FIXED, "max_overcount": E_REGION}, {"name": "share", **FIXED, "on_isolation": "share"},
         {"name": "sliding", **FIXED, "algorithm": "sliding_window"}, {"name": "probe", **FIXED},
         {"name": "bucket", "algorithm": "token_bucket", "rate": f"{LIMIT // WINDOW_S}/s", "burst": LIMIT, "max_overcount": 0, "on_isolation": "closed",
          "wait": f"{WAIT_MS}ms"}]
BOUND = {"strict": LIMIT, "5%": round(LIMIT * (1 + E_ALL)), "share": LIMIT, "sliding": LIMIT}


def aggregators(region):
    return [f"{region}-agg{n}" for n in range(1, AGGREGATORS + 1)]


def edges(region):
    return [f"{region}-edge{n}" for n in range(1, EDGES + 1)]


def hosts_of(place):
    """All hosts at a place: the world's, and those of a region."""
    return [f"{place}-world", *(aggregators(place) + edges(place) if place in REGIONS else [])]


def world():
    return [f"{place}-world" for place in PLACES]


def lay_out():
    """The network, with the distances between places."""
    network = Network([host for place in PLACES for host in hosts_of(place)])
    for one in PLACES:
        for other in PLACES:
            if one != other:
                network.set(",".join(hosts_of(one)), ",".join(hosts_of(other)), delay=ROUND_TRIP_MS / 2)
    return network


def cut_off(network, place):
    """No packet between this place and the others."""
    network.split(",".join(hosts_of(place)), ",".join(host for other in PLACES if other != place for host in hosts_of(other)))


def entries(network, hosts):
    return [f"{network.hosts[host].ipv4}:{PORT}" for host in hosts]


@contextlib.contextmanager
def fleets(ground, network):
    """{"world": fleet, "a": fleet, "b": fleet}"""
    started, begun = {}, time.monotonic()
    above = [{**rule, "max_overcount": 0, "on_isolation": "closed"} for rule in RULES]
    try:
        started["world"] = HostFleet(ground.place, network, above, world(), guests=())
        for region in REGIONS:
            started[region] = HostFleet(ground.place, network, RULES, aggregators(region) + edges(region), guests=edges(region),
                                        size=AGGREGATORS + EDGES, upstream=entries(network, world()))
        ground.say(f"[{len(network.hosts)} tallyd processes ready after {time.monotonic() - begun:.1f} s]")
        yield started
    finally:
        for fleet in started.values():
            fleet.stop()


class Field:
    """The fleets, and what is asked of them."""

    def __init__(self, ground, network, started):
        self.ground, self.network, self.fleets = ground, network, started

    def edges(self, region):
        return self.fleets[region].on(edges(region))

    def node(self, host):
        return next(node for fleet in self.fleets.values() for node in fleet.nodes if node.host == host)

    def owner(self, fleet, rule, key):
        """The host that owns the key there, naturally."""
        told = as_map(self.fleets[fleet].on(world() if fleet == "world" else edges(fleet))[0].ask("TALLY.EXPLAIN", rule, key))
        return self.fleets[fleet].by_entry(told["group"][0]).host

    def key(self, rule, **owners):
        """A fresh key that these own: region="host", or a list of them."""
        for _ in range(2000):
            key = self.ground.fresh_key()
            if all(self.owner(fleet, rule, key) in hosts for fleet, hosts in owners.items()):
                return key
        raise DemoError("no such key was found")


class Part:
    """Some windows: load under keys of its own, what is done meanwhile, and a probe in each region."""

    def __init__(self, field, windows, **probe_owners):
        self.field = field
        self.line = Timeline(field.ground.place, WINDOW_S, {f"w{n}": (n * WINDOW_S, (n + 1) * WINDOW_S) for n in range(windows)},
                             field.ground.random.random(), END_GUARD_S)
        self.probe_key = field.key("probe", **probe_owners)
        self.moments, self.counted, self.told = {}, {}, {}

    def load(self, rule, key, parts, windows=None, hosts=EDGES):
        """`parts`: {region: the part of the limit that is asked for there in each window}, over so many of its edges."""
        for region, part in parts.items():
            for node in self.field.edges(region)[:hosts]:
                self.line.ask(rule, key, node, part * LIMIT / WINDOW_S / hosts, windows)

    def at(self, seconds, what, do):
        """`what`: the name under which the moment is kept."""
        def act():
            self.moments[what] = time.time()
            do()
        self.line.at(seconds, act)

    def look(self, seconds, name, region, rules_and_keys):
        """Keeps what edges of the region say then: the metric, and whether EXPLAIN has them isolated."""
        def act():
            nodes = self.field.edges(region)
            self.counted[name] = {rule: sum(value for node in nodes for metric, labels, value in node.metrics() if metric == METRIC and labels["rule"] == rule)
                                  for rule, _ in rules_and_keys}
            with questions(nodes) as ask:
                self.told[name] = [int(ask.explain(node, rule, key)["isolated"]) for node in nodes for rule, key in rules_and_keys]
        self.line.at(seconds, act)

    def run(self):
        with self.field.ground.asker() as asker:
            self.probes = {region: asker.stream(self.field.edges(region), "probe", self.probe_key, PROBE_RATE, self.field.ground.random.random())
                           for region in REGIONS}
            self.line.run()
            asker.check()
        return self

    def admitted(self, rule, key, window, region=None):
        return self.line.admitted(rules=[rule], keys=[key], phases=[window], hosts=edges(region) if region else None)

    def parts_of_limit(self, rule, key, windows, region=None):
        return [100 * self.admitted(rule, key, window, region) / LIMIT for window in windows]

    def risen(self, rule, before, after):
        return self.counted[after][rule] - self.counted[before][rule]

    def answers(self, region, since, until=None):
        """Of the probe, those asked for between two moments."""
        end = self.moments[until] if until else float("inf")
        return [answer for answer in self.probes[region].answers if self.moments[since] <= answer.sent < end]

    def first(self, region, since, until=None, wanted=lambda answer: answer.admitted):
        """Seconds from the moment to the first such answer to the probe; where there was none, a window's length."""
        return min((answer.at for answer in self.answers(region, since, until) if wanted(answer)), default=self.moments[since] + WINDOW_S) - self.moments[since]

    def last_denied(self, region, since, until=None):
        """Seconds from the moment to the last denial of the probe, 0 where there was none."""
        return max((answer.at for answer in self.answers(region, since, until) if not answer.admitted), default=self.moments[since]) - self.moments[since]


def both(part):
    return {region: part for region in REGIONS}


def shared(field):
    part = Part(field, 3)
    windows = list(part.line.phases)
    keys = {rule["name"]: field.key(rule["name"]) for rule in RULES if rule["name"] != "probe"}
    one, moving = field.key("strict"), field.key("strict")
    for rule, key in keys.items():
        part.load(rule, key, both(PRESSURE))
    part.load("strict", one, {"a": PRESSURE}, hosts=2)
    for window, region in zip(windows, "aba"):
        part.load("strict", moving, {region: PRESSURE}, [window])
    part.run()
    for rule, bound in BOUND.items():
        case = f"regions, {rule}"
        yield at_most(case, f"both ask for {PRESSURE} L: admitted in a window", bound, [part.admitted(rule, keys[rule], window) for window in windows])
        yield at_least(case, "of L", ADMITTED, part.parts_of_limit(rule, keys[rule], windows), "%")
    in_all = part.line.admitted(rules=["bucket"])
    yield at_most("regions, bucket", f"both ask for {PRESSURE} times the rate: admitted in {len(windows)} windows' time", LIMIT * (1 + len(windows)), [in_all])
    yield at_least("regions, bucket", "of the rate, in a window after the first", ADMITTED, part.parts_of_limit("bucket", keys["bucket"], windows[1:]), "%")
    for key, what in ((one, "all at two edges of one region"), (moving, "from region to region with each window")):
        yield at_most("regions, uneven", f"{what}: admitted in a window", LIMIT, [part.admitted("strict", key, window) for window in windows])
        yield at_least("regions, uneven", f"{what}: of L", ADMITTED, part.parts_of_limit("strict", key, windows), "%")
    for region in REGIONS:
        yield shown("regions", f"probe, region {region}: denied of {len(part.probes[region].answers)}",
                    [sum(not answer.admitted for answer in part.probes[region].answers)])


CUT, JOINED = 3, 22


def cut(field):
    part = Part(field, 4, world=["b-world", "c-world"])
    keys = {"strict": field.key("strict", world=["b-world", "c-world"]), "share": field.key("share", world=["b-world", "c-world"])}
    inside = field.key("strict", world=["a-world"])  # its owner above is cut off with the region
    looked = list(keys.items())
    for rule, key in [*looked, ("strict", inside)]:
        part.load(rule, key, both(PRESSURE))
    for region in REGIONS:
        part.look(CUT - 0.2, f"{region} before", region, looked)
        part.look(JOINED - 2.5, f"{region} cut", region, looked)
        part.look(39.5, f"{region} after", region, looked)
    part.at(CUT, "cut", lambda: cut_off(field.network, "a"))
    part.at(JOINED, "joined", lambda: field.network.join("*", "*"))
    part.run()
    case = "regions, one cut off"
    closed = [("strict", keys["strict"]), ("strict", inside)]
    windows = list(part.line.phases)
    yield at_most(case, "closed: admitted in a window, the bound isolated", LIMIT, [part.admitted(rule, key, window) for rule, key in closed for window in windows])
    yield shown(case, "share: the same", [part.admitted("share", keys["share"], window) for window in windows])
    yield shown(case, "closed: of L in the window with the cut", [n for rule, key in closed for n in part.parts_of_limit(rule, key, ["w0"])], "%", min)
    for region, rest in (("a", "cut off"), ("b", "the other")):
        for name, which in (("closed", closed), ("share", [("share", keys["share"])])):
            yield shown(case, f"{name}, apart: of L, {rest}", [n for rule, key in which for n in part.parts_of_limit(rule, key, ["w1"], region)], "%", min)
    yield at_least(case, "closed, apart: of L, all", ADMITTED, [n for rule, key in closed for n in part.parts_of_limit(rule, key, ["w1"])], "%")
    yield shown(case, "probe: goes on without a denial for", [part.first("a", "cut", wanted=lambda answer: not answer.admitted)], "s", min)
    isolated, denied = part.first("a", "cut", wanted=lambda answer: answer.reason == ISOLATED), part.first("a", "cut", wanted=lambda answer: not answer.admitted)
    yield at_most(case, "probe: from its first denial until it says that it is isolated", 4, [isolated - denied], "s")
    yield holds(case, "EXPLAIN isolated, at each edge there, and at none of the other region", [all(part.told["a cut"]), not any(part.told["b cut"])])
    yield holds(case, f"{METRIC} rises there, and not in the other region",
                [part.risen(rule, "a before", "a cut") > 0 and part.risen(rule, "b before", "b cut") == 0 for rule in keys])
    yield at_most(case, "after contact, served again", 1, [part.first("a", "joined")], "s")
    yield at_most(case, "after contact, the last denial of the probe", 2, [part.last_denied("a", "joined")], "s")
    yield at_least(case, "closed: of L in the window of contact", ADMITTED, [n for rule, key in closed for n in part.parts_of_limit(rule, key, ["w2"])], "%")
    yield at_least(case, "of L in the window after", ADMITTED, [n for rule, key in [*closed, looked[1]] for n in part.parts_of_limit(rule, key, ["w3"])], "%")
    yield shown(case, "of L in the window after, where it was cut off", [n for rule, key in [*closed, looked[1]] for n in part.parts_of_limit(rule, key, ["w3"], "a")], "%", min)
    yield holds(case, "EXPLAIN isolated nowhere in the window after", [not any(part.told[f"{region} after"]) for region in REGIONS])


ONE_KILLED, ALL_KILLED, BACK = 1.5, 16, 22  # the first while there is much left to lose


def aggregators_die(field):
    first, *others = [field.node(host) for host in aggregators("a")]
    part = Part(field, 4, a=[first.host])
    keys = {rule: field.key(rule, a=[first.host]) for rule in ("strict", "share")}
    looked = list(keys.items())
    for rule, key in looked:
        part.load(rule, key, both(PRESSURE))

    def kill(nodes):
        for node in nodes:
            node.child.kill()

    def start(nodes):
        for node in nodes:
            node.start()

    part.at(ONE_KILLED, "one", lambda: kill([first]))
    part.look(ALL_KILLED - 0.3, "before", "a", looked)
    part.at(ALL_KILLED, "all", lambda: kill(others))
    part.look(BACK - 0.5, "dead", "a", looked)
    part.at(BACK, "back", lambda: start([first, *others]))
    part.look(39.5, "after", "a", looked)
    part.run()
    case = "regions, aggregators"
    windows = list(part.line.phases)
    yield at_most(case, "closed: admitted in a window", LIMIT, [part.admitted("strict", keys["strict"], window) for window in windows])
    yield shown(case, "share: admitted in a window", [part.admitted("share", keys["share"], window) for window in windows])
    yield at_most(case, "the owner is killed: the last denial of the probe", 1, [part.last_denied("a", "one", "all")], "s")
    yield shown(case, "the owner is killed: denials of the probe", [sum(not answer.admitted for answer in part.answers("a", "one", "all"))])
    yield at_least(case, "closed: of L in that window", AFTER_DEATH, part.parts_of_limit("strict", keys["strict"], ["w0"]), "%")
    yield at_least(case, "closed: of L in the next, in which the others die", AFTER_DEATH, part.parts_of_limit("strict", keys["strict"], ["w1"]), "%")
    yield shown(case, "all are dead: goes on without a denial for", [part.first("a", "all", "back", lambda answer: not answer.admitted)], "s", min)
    yield at_most(case, "all are dead: the probe says that it is isolated after", 5, [part.first("a", "all", "back", lambda answer: answer.reason == ISOLATED)], "s")
    yield holds(case, "all are dead: EXPLAIN isolated at each edge", [all(part.told["dead"])])
    yield holds(case, f"all are dead: {METRIC} rises", [part.risen(rule, "before", "dead") > 0 for rule in keys])
    yield at_most(case, "back: served again", 2, [part.first("a", "back")], "s")
    yield at_most(case, "back: the last denial of the probe", 3, [part.last_denied("a", "back")], "s")
    yield at_least(case, "of L in the window after", ADMITTED, [n for rule, key in looked for n in part.parts_of_limit(rule, key, ["w3"])], "%")
    yield shown(case, "of L in the window after, there", [n for rule, key in looked for n in part.parts_of_limit(rule, key, ["w3"], "a")], "%", min)
    yield holds(case, "EXPLAIN isolated nowhere in the window after", [not any(part.told["after"])])


def world_dies(field):
    victim = field.node("b-world")
    part = Part(field, 2, world=[victim.host])
    key = field.key("strict", world=[victim.host])
    part.load("strict", key, both(PRESSURE))
    part.at(1.5, "killed", victim.child.kill)
    part.at(13, "back", victim.start)
    part.run()
    case = "regions, one of the world"
    yield at_most(case, "the owner above is killed: admitted in a window", LIMIT, [part.admitted("strict", key, window) for window in part.line.phases])
    for region in REGIONS:
        yield shown(case, f"the last denial of the probe, region {region}", [part.last_denied(region, "killed", "back")], "s")
        yield shown(case, f"denials of the probe, region {region}", [sum(not answer.admitted for answer in part.answers(region, "killed", "back"))])
    yield at_least(case, "of L in that window", AFTER_DEATH_FAR, part.parts_of_limit("strict", key, ["w0"]), "%")
    yield at_least(case, "of L in the next, in which it comes back", ADMITTED, part.parts_of_limit("strict", key, ["w1"]), "%")


PARTS = (shared, cut, aggregators_die, world_dies)


def regions(ground):
    ground.say(f"regions: {len(REGIONS)} of {AGGREGATORS} aggregators and {EDGES} guests, a world of {len(PLACES)}, {ROUND_TRIP_MS} ms apart")
    with lay_out() as network, fleets(ground, network) as started:
        field = Field(ground, network, started)
        for part in PARTS:
            yield from undisturbed(ground.say, lambda part=part: list(part(field)))


CASES = {"regions": (on_hosts("regions", regions), "two regions and a world: shared limits, a region cut off, aggregators that die")}
