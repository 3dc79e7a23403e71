"""Load that is planned beforehand over windows that follow each other, what is done to the network meanwhile, and what was admitted when.

A window is its number, so what is said of one is said of the requests that were decided in it: none is sent so near to a window's end that its
answer, waited for, could come after it.
"""
import random
import time

from fleet import DemoError, Load


class Paused(DemoError):
    """The machine stood still for too long: nobody knows what belongs to which window."""

BEGIN_GUARD_S, END_GUARD_S = 0.05, 0.25  # of a window, without requests; the second is longer than most rules here wait
PLANNING_S = 4


class Timeline:
    """`phases`: {name: (from, to)}, seconds from the begin of the first window; none crosses a window's end. `end_guard_s`: longer than rules wait."""

    def __init__(self, place, window_s, phases, seed, end_guard_s=END_GUARD_S):
        self.window_s, self.phases, self.end_guard_s = window_s, phases, end_guard_s
        self.random = random.Random(seed)
        self.load = Load(place)
        self.actions = []
        self.requests = []
        self.outcome = None

    def ask(self, rule, key, node, rate, phases=None):
        """Requests at random times, `rate` a second, in these phases (all)."""
        for name in phases or self.phases:
            begin, end = self.phases[name]
            begin += BEGIN_GUARD_S if begin % self.window_s == 0 else 0
            end -= self.end_guard_s if end % self.window_s == 0 else 0
            for _ in range(round(rate * (self.phases[name][1] - self.phases[name][0]))):
                self.requests.append((begin + self.random.random() * (end - begin), rule, key, node, name))

    def at(self, seconds, do):
        self.actions.append((seconds, do))

    def run(self):
        """Plans, waits for a window to begin, and does all of it. A timeline runs once."""
        try:
            return self._run()
        finally:
            self.load.child.stop()

    def _run(self):
        begin = ((time.time() + PLANNING_S) // self.window_s + 1) * self.window_s
        start = begin - 0.5
        for _, rule, _, node, _ in self.requests:
            self.load.open(f"{node.name}.{rule}", node.socket)  # once for each: nothing else waits behind a rule's replies
        for seconds, rule, key, node, phase in sorted(self.requests, key=lambda each: each[0]):
            self.load.shot(begin - start + seconds, f"{rule}:{key}:{phase}/{node.host}", f"{node.name}.{rule}", f"take {rule} {key}")
        if time.time() > start:
            raise Paused("the machine took too long to plan the load")
        time.sleep(start - time.time())
        length = max(end for _, end in self.phases.values())
        self.load.begin(length + 15)
        for seconds, do in sorted(self.actions, key=lambda each: each[0]):
            time.sleep(max(0.0, begin + seconds - time.time()))
            do()
        self.outcome = self.load.finish()
        if self.outcome.errors():
            raise DemoError(f"the daemon answered: {self.outcome.errors()[0]}")
        late = self.outcome.late_ms / 1000 + abs(self.outcome.start_s - start)
        if late > BEGIN_GUARD_S + END_GUARD_S / 2:
            raise Paused(f"the machine paused for {late:.2f} s")
        return self

    def flows(self, rules=None, keys=None, phases=None, hosts=None):
        for name, flow in self.outcome.raw["flows"].items():
            group, host = name.split("/", 1)
            rule, key, phase = group.split(":")
            if all(wanted is None or has in wanted for wanted, has in ((rules, rule), (keys, key), (phases, phase), (hosts, host))):
                yield flow

    def total(self, field, **which):
        return sum(flow[field] for flow in self.flows(**which))

    def admitted(self, **which):
        return self.total("admitted", **which)

    def reason(self, number, **which):
        return sum(flow["reasons"][number] for flow in self.flows(**which))

    def longest_ms(self, **which):
        return max((flow["max_us"] for flow in self.flows(**which)), default=0) / 1000


def undisturbed(say, make, times=3):
    """make(), and again where the machine paused: with other keys, so that nothing of the first one counts."""
    for left in reversed(range(times)):
        try:
            return make()
        except Paused as problem:
            if not left:
                raise
            say(f"[{problem}: once more]")
    raise AssertionError
