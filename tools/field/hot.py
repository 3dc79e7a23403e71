"""A node dies that owns its share of very many hot keys: all of them want a new owner at once."""
import contextlib
import re
import threading
import time

from fleet import DemoError, Load
from ground import questions, rule, start_again
from rows import at_most, shown

NODES = 5
KEYS = 100_000
ASKS = 6_000             # a second, in turns, each at a node drawn at random: strict, so nearly each wants a grant
ORPHANS = 0.8            # the part of the asks after the death that is for the dead node's keys
BEFORE_S, AFTER_S = 3, 8  # all of the dead node's are asked for after the death, more than once
BUCKET_MS = 20
GOAL_MS = 500
LATE_MS = 20       # what an ask waits: where the machine keeps the load back for so long it keeps the daemons back, too
PATIENCE = 4       # so often a trial is repeated for that
SAMPLE_S = 0.5
RULES = [rule("hot", 1000, 3600, 0, wait="20ms")]
DROPS = ("tallyd_notes_dropped_total", "tallyd_sync_dropped_total")
RATES = {"claims": ("tallyd_claims_total", {"outcome": "started"}), "datagrams": ("tallyd_sync_datagrams_total", {"direction": "out"}),
         "bytes": ("tallyd_sync_bytes_total", {"direction": "out"})}


class Sampler(threading.Thread):
    """What the nodes have counted, again and again: [(wall, {name: sum}), ...]"""

    def __init__(self, nodes):
        super().__init__(daemon=True)
        self.nodes, self.samples, self._end = nodes, [], threading.Event()
        self.start()

    def run(self):
        while not self._end.wait(SAMPLE_S):
            self.samples.append((time.time(), counted(self.nodes)))

    def end(self):
        self._end.set()
        self.join()

    def most_a_second(self, name, since, until):
        """The steepest rise between two samples in that time."""
        inside = [(at, sums[name]) for at, sums in self.samples if since <= at <= until]
        return max(((b - a) / (t1 - t0) for (t0, a), (t1, b) in zip(inside, inside[1:])), default=0)


def counted(nodes):
    sums = dict.fromkeys([*RATES, "won", "drops"], 0.0)
    for node in nodes:
        for name, has, value in node.metrics():
            for rate, (metric, labels) in RATES.items():
                if name == metric and all(has.get(k) == v for k, v in labels.items()):
                    sums[rate] += value
            if name in DROPS:
                sums["drops"] += value
            if name == "tallyd_claims_total" and has["outcome"] == "won":
                sums["won"] += value
    return sums


def peak_memory_mib(node):
    with open(f"/proc/{node.child.pid}/status") as status:
        return int(re.search(r"VmHWM:\s*(\d+) kB", status.read()).group(1)) / 1024


class Trial:
    """One death."""

    def __init__(self, ground, fleet, load, keys, victim):
        self.ground, self.fleet, self.load, self.victim = ground, fleet, load, victim
        self.alive = [node for node in fleet.nodes if node is not victim]
        with questions([self.alive[0]]) as ask:
            groups = ask.groups(fleet, self.alive[0], "hot", keys)
        self.keys = keys
        self.orphans = [key for key, group in zip(keys, groups) if group[0] is victim]
        self.others = [key for key, group in zip(keys, groups) if group[0] is not victim]

    def run(self):
        for node in self.fleet.nodes:
            self.load.open(node.name, node.socket)
        self._sweep(0, KEYS / ASKS, self.fleet.nodes, self.keys, ASKS, lambda at: "warm")
        self.load.run(60)
        memory = max(map(peak_memory_mib, self.alive))
        before = counted(self.alive)
        self.load.kill(BEFORE_S, self.victim.child.pid)
        self._sweep(0, BEFORE_S, self.fleet.nodes, self.keys, ASKS, lambda at: "before")
        self._sweep(BEFORE_S, AFTER_S, self.alive, self.orphans, ASKS * ORPHANS, lambda at: f"o{int((at - BEFORE_S) * 1000) // BUCKET_MS * BUCKET_MS}")
        self._sweep(BEFORE_S, AFTER_S, self.alive, self.others, ASKS * (1 - ORPHANS), lambda at: "others")
        sampler = Sampler(self.alive)
        try:
            outcome = self.load.run(60)
        finally:
            sampler.end()
        self.victim.child.kill()
        self.load.forget(self.victim.name)
        killed_at = outcome.start_s + BEFORE_S
        self.late_ms = outcome.late_ms
        self.denied_before = denied(outcome, "before")
        self.denied_others = denied(outcome, "others")
        by_time = {ms: denied(outcome, f"o{ms}") for ms in range(0, int(AFTER_S * 1000), BUCKET_MS)}
        self.denied = sum(n for ms, n in by_time.items() if ms < GOAL_MS)
        self.late = sum(n for ms, n in by_time.items() if ms >= GOAL_MS) / sum(outcome.offered(f"o{ms}") for ms in by_time if ms >= GOAL_MS) * 100
        self.served_ms = next(ms + BUCKET_MS for ms in sorted(by_time, reverse=True) if ms < GOAL_MS and by_time[ms] or ms == 0)
        self.last_ms = max((ms + BUCKET_MS for ms, n in by_time.items() if n), default=0)
        after = counted(self.alive)
        self.drops = after["drops"] - before["drops"]
        self.won = after["won"] - before["won"]
        self.memory = memory, max(map(peak_memory_mib, self.alive))
        self.rates = {name: (sampler.most_a_second(name, outcome.start_s + 0.5, killed_at), sampler.most_a_second(name, killed_at, killed_at + AFTER_S))
                      for name in RATES}

    def _sweep(self, begin_s, for_s, nodes, keys, asks, group_of):
        chance = self.ground.random
        for i in range(int(for_s * asks)):
            at = begin_s + i / asks
            self.load.shot(at, f"{group_of(at)}/x", chance.choice(nodes).name, f"take hot {keys[i % len(keys)]}")


def denied(outcome, group):
    return outcome.offered(group) - outcome.admitted(group)


def hot(ground):
    times = max(1, ground.runs // 20)
    ground.say(f"\nhot: {KEYS} strict keys on {NODES} nodes, {ASKS} asks a second; one node is killed with its share of them; {times} times")
    yield from rows_of([undisturbed(ground) for _ in range(times)])


def undisturbed(ground):
    for _ in range(PATIENCE):
        with contextlib.ExitStack() as stack:
            fleet = stack.enter_context(ground.fleet(NODES, RULES, keys=4 * KEYS))
            load = Load(ground.place)
            stack.callback(load.child.stop)
            trial = Trial(ground, fleet, load, [ground.fresh_key() for _ in range(KEYS)], ground.random.choice(fleet.nodes))
            trial.run()
            trial.ready_s = start_again(trial.victim)
        if trial.late_ms <= LATE_MS:
            return trial
        ground.say(f"[the machine held the load back for {trial.late_ms:.0f} ms: once more]")
    raise DemoError(f"the machine held the load back for more than {LATE_MS} ms, {PATIENCE} times")


def rows_of(trials):
    def row(what, values, unit="", **more):
        return shown("hot", what, list(values), unit, **more)

    yield row("keys that the dead node owned", (len(t.orphans) for t in trials))
    yield at_most("hot", f"asks for them denied later than {GOAL_MS} ms after the death", 1, [t.late for t in trials], "%")
    yield row(f"asks for them denied in the first {GOAL_MS} ms", (t.denied for t in trials))
    yield row("the last of these was asked before", (t.served_ms for t in trials), "ms")
    yield row("the last of all was asked before", (t.last_ms for t in trials), "ms")
    yield row("asks for other keys denied after the death", (t.denied_others for t in trials))
    yield row(f"asks denied in {BEFORE_S} s before the death", (t.denied_before for t in trials))
    yield row("claims won by the others", (t.won for t in trials))
    for name in RATES:
        yield row(f"{name} a second at the others, most before", (round(t.rates[name][0]) for t in trials))
        yield row(f"{name} a second at the others, most after", (round(t.rates[name][1]) for t in trials))
    yield at_most("hot", "notes and datagrams dropped at the others", 0, [t.drops for t in trials])
    yield row("peak memory of one of the others before", (t.memory[0] for t in trials), "MiB")
    yield row("peak memory of one of the others after", (t.memory[1] for t in trials), "MiB")
    yield row("the killed one ready again after", (t.ready_s for t in trials), "s")
    yield row("an ask left late by at most", (t.late_ms for t in trials), "ms")


CASES = {"hot": (hot, "a node with its share of 100,000 hot keys is killed")}
