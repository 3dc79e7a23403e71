"""What the cases of the demonstration share: rules, fleets, traffic, the report with its promises."""
import math
import random
import time

from fleet import DemoError, Fleet, Load, Redis, wait_for

MINUTE = 60
QUARTER = 15 * MINUTE
WAIT_MS = 20  # the daemon's default


def rule(name, limit, window, overcount="5%", algorithm="sliding_window", wait=None):
    made = {"name": name, "algorithm": algorithm, "limit": limit, "window": f"{window}s", "max_overcount": overcount,
            "on_isolation": "closed"}
    return made if wait is None else made | {"wait": wait}


def with_and_without_wait(name, *args, **kwargs):
    """The rule, and "NAME-now": the same for those who never wait."""
    return [rule(name, *args, **kwargs), rule(f"{name}-now", *args, wait="0ms", **kwargs)]


RULES = (with_and_without_wait("doors", 100, MINUTE) + with_and_without_wait("tills", 50, MINUTE)
         + with_and_without_wait("day", 1000, MINUTE) + with_and_without_wait("login", 5, QUARTER, overcount=0)
         + with_and_without_wait("toll", 100, 20, algorithm="fixed_window") + [rule("wide", 1 << 30, MINUTE)])
BY_NAME = {each["name"]: each for each in RULES}


def window_s(name):
    return int(BY_NAME[name]["window"][:-1])


def limit_of(name):
    return BY_NAME[name]["limit"]


def bound_of(limit, overcount):
    """L + floor(e * L), e as configured."""
    ppm = round(float(overcount[:-1]) * 10_000) if isinstance(overcount, str) else overcount
    return limit + limit * ppm // 1_000_000


def bound_of_rule(name):
    return bound_of(limit_of(name), BY_NAME[name]["max_overcount"])


def at_least(part, whole):
    return math.ceil(part * whole - 1e-9)


class Report:
    """Prints as it goes, keeps the promises for the summary."""

    def __init__(self):
        self.promises = []  # (case, text, kept)
        self.case = ""

    def title(self, case, text):
        self.case = case
        self.line(f"\n{case}. {text}" if case else f"\n{text}")

    @staticmethod
    def line(text=""):
        print(text, flush=True)

    def note(self, text):
        self.line(f"     {text}")

    def promise(self, text, kept):
        self.promises.append((self.case, text, bool(kept)))
        self.line(f"     {'kept  ' if kept else 'BROKEN'}  {text}")

    def broken(self):
        return [p for p in self.promises if not p[2]]

    def summary(self, seconds):
        self.line(f"\nSummary ({seconds:.0f} s)")
        for case, text, kept in self.promises:
            self.line(f"  {'kept  ' if kept else 'BROKEN'}  {f'case {case}: ' if case else ''}{text}")
        broken = len(self.broken())
        self.line(f"{len(self.promises) - broken} promises kept, {broken} broken")


class World:
    """`books`: fleets keep theirs in a Redis."""

    def __init__(self, place, seed, books=False):
        self.place, self.seed = place, seed
        self.random = random.Random(seed)
        self.report = Report()
        self.load = Load(place)
        self.redis = Redis(place)
        self.books = Redis(place, "books") if books else None
        self.fleets = {}
        self.keys = 0

    def fleet(self, count, alone=False, rules=None, name=""):
        """The fleet of that size, started at the first need."""
        if (count, alone, name) not in self.fleets:
            started = time.monotonic()
            fleet = Fleet(self.place, count, rules or RULES, alone=alone, cluster=None if alone else self.books_for(f"{count}{name}"))
            self.fleets[count, alone, name] = fleet
            if not alone:
                self.wait_for_grants(fleet)
            self.report.line(f"[{count} tallyd processes{' that know nothing of each other' if alone else ', one fleet'}, "
                             f"ready after {time.monotonic() - started:.1f} s]")
        return self.fleets[count, alone, name]

    def books_for(self, fleet, path=None):
        """What a fleet's configuration says of them: names of its own there."""
        return {"books": f"unix:{path or self.books.socket}?prefix=fleet-{fleet}"} if self.books else {}

    def wait_for_grants(self, fleet):
        """Books that are new there, or were lost, grant nothing for a quiet time."""
        if self.books:
            name, more_than_floors = fleet.rules[0]["name"], math.ceil(fleet.rules[0]["limit"] / 4)
            key = self.fresh_key()
            wait_for(lambda: fleet.nodes[0].ask("TALLY.TAKE", name, key, more_than_floors)[0] == 0, "the books granted nothing")

    def stop_fleets(self, keep=()):
        for which in [w for w in self.fleets if w not in keep]:
            for node in self.fleets[which].nodes:
                self.load.forget(node.name)
            self.fleets.pop(which).stop()

    def fresh_key(self):
        """A key that no run of any seed had on this fleet, and that the seed decides."""
        self.keys += 1
        return f"{self.random.getrandbits(48):012x}.{self.keys}"

    def connect(self, fleet):
        for node in fleet.nodes:
            if node.child.alive():
                self.load.open(node.name, node.socket)

    def room_in(self, seconds, *windows):
        """Waits until each of these windows has that many seconds left, so that a case lies in one window of each."""
        waited = 0.0
        while True:
            now = time.time()
            left = min(w - now % w for w in windows)
            if left >= seconds:
                break
            time.sleep(left + 0.05)
            waited += left + 0.05
        if waited > 0.5:
            self.report.line(f"[waited {waited:.1f} s, so that the next case lies within one window]")

    def within_one_window(self, outcome, *windows):
        # A reply that came before the window's end is a decision of before that; nothing can be said the other way round.
        return all(outcome.start_s // w == outcome.end_s // w for w in windows)

    def in_one_window(self, seconds, windows, make):
        """Plans by make() and runs, again with other keys in the rare case that a pause pushed it over a boundary."""
        for _ in range(3):
            self.room_in(seconds, *windows)
            made = make()
            outcome = self.load.run(seconds + 10)
            if outcome.errors():
                raise DemoError(f"the daemon answered: {outcome.errors()[0]}")
            if self.within_one_window(outcome, *windows):
                return made, outcome
            self.report.line("[the machine paused and the case lay in two windows: once more with another key]")
        raise DemoError("the case did not fit into a window three times")

    # Traffic. `counts`: how many requests arrive at each node; `spread_s`: over what time (0: at once).

    def plan_take(self, group, fleet, rule_name, key, counts, spread_s=0.0):
        self.connect(fleet)
        for node, count in zip(fleet.nodes, counts):
            self._plan(f"{group}/{node.name}", node.name, f"take {rule_name} {key}", count, spread_s)

    def plan_redis(self, group, rule_name, key, counts, spread_s=0.0, path=None):
        for i, count in enumerate(counts):
            name = f"redis{i + 1:02}"
            self.load.open(name, path or self.redis.socket)
            request = f"incr {rule_name}:{key} {limit_of(rule_name)} {window_s(rule_name)}"
            self._plan(f"{group}/{name}", name, request, count, spread_s)

    def _plan(self, tag, connection, request, count, spread_s):
        if spread_s == 0 and count:
            self.load.shot(0, tag, connection, request, count=count)
            return
        for at in sorted(self.random.random() * spread_s for _ in range(count)):
            self.load.shot(at, tag, connection, request)

    def compare(self, rule_name, fleet_size, counts, spread_s, seconds):
        """The same traffic four ways; prints a line each and returns what tallyd admitted with waiting on."""
        fleet, alone = self.fleet(fleet_size), self.fleet(20, alone=True)
        w = [window_s(rule_name)]

        def ways():
            yield "tallyd", lambda key: self.plan_take("x", fleet, rule_name, key, counts, spread_s)
            yield "tallyd, wait 0", lambda key: self.plan_take("x", fleet, f"{rule_name}-now", key, counts, spread_s)
            yield "each door alone", lambda key: self.plan_take("x", alone, rule_name, key, counts, spread_s)
            yield "one Redis", lambda key: self.plan_redis("x", rule_name, key, counts, spread_s)

        self.report.note(f"limit {limit_of(rule_name)} per {window_text(w[0])}, promised: at most {bound_of_rule(rule_name)}")
        admitted = {}
        for name, plan in ways():
            _, outcome = self.in_one_window(seconds, w, lambda plan=plan: plan(self.fresh_key()))
            admitted[name] = outcome.admitted("x")
            self.show(name, outcome, "x", counts)
        return admitted["tallyd"], admitted["tallyd, wait 0"]

    def show(self, name, outcome, group, counts=None):
        by_node = [flow["admitted"] for flow in outcome.flows(group).values()]
        text = f"{name:<16} offered {outcome.offered(group):>6}  admitted {outcome.admitted(group):>6}"
        median, p99, _ = outcome.latency(group)
        text += f"   answer {median:.2f} ms, p99 {p99:.2f} ms"
        if counts is not None and sum(1 for c in counts if c) > 1:
            same = len(set(by_node)) == 1
            text += f"   {by_node[0]} at each" if same else "   by node " + " ".join(map(str, by_node))
        self.report.note(text)


def window_text(seconds):
    return {60: "minute", 900: "15 min"}.get(seconds, f"{seconds} s")
