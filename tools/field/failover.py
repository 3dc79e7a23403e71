"""The owner of a key dies, or hangs, while the whole fleet asks for it."""
import contextlib
import os
import random
import signal
import time

from ground import ANSWERS_S, in_window, keys_of, next_window, questions, rule, sleep_until, start_again
from rows import at_least, at_most, shown
from world import bound_of

NODES = 5
LIMIT, WINDOW_S = 1000, 5
LOAD = 1.5                               # times the limit, over all nodes
KINDS = {"strict": 0, "5%": "5%"}        # rules of these names, with this overcount
POLICIES = ("closed", "share", "open")   # a fleet for each, at the same time: a failover is no isolation, so the bound is the same
SEEN_S = 3                               # a new owner that is not seen by then never came
GOAL_MS, GOAL_PART = 500, 90


def rate():
    return LOAD * LIMIT / WINDOW_S


class Measured:
    """Of one key in one window in which its owner died."""

    def __init__(self, kind, killed_at):
        self.kind, self.killed_at = kind, killed_at
        self.issued_ms = self.all_ms = None  # from the death until somebody was admitted under a new owner; until all nodes had something of its
        self.refused = 0                     # asks in vain from the death until then, at the nodes that live
        self.stretch_ms = 0.0                # the longest time at one of them from the first of these to the next admission
        self.unspent = 0                     # what the dead node had been granted and not used, which nobody else can have
        self.admitted = self.perhaps = self.after = self.ready_s = None


def watch(ask, alive, keys, before, killed_at):
    """When each node had something of a new owner, that is, a higher ceiling under a higher ballot: {kind: {node: wall}}."""
    seen, held = {kind: {} for kind in keys}, {}
    while time.time() < killed_at + SEEN_S and any(len(each) < len(alive) for each in seen.values()):
        for kind, key in keys.items():
            for node in alive:
                if node.name in seen[kind]:
                    continue
                ballot, ceiling = ask.ballot_and_ceiling(node, kind, key)
                if ballot <= before[kind]:
                    held[kind, node.name] = ceiling
                elif ceiling > held.get((kind, node.name), 0):
                    seen[kind][node.name] = time.time()
        time.sleep(0.003)
    return seen


def look_at(measured, stream, seen, alive):
    """From the answers: when the new owner's grants were felt, and what was refused until then."""
    after = {node.name: [a for a in stream.answers if a.node == node.name and a.sent >= measured.killed_at] for node in alive}
    issued = [first for name, heard in seen.items()
              if (first := next((a.at for a in after[name] if a.admitted and a.at >= heard), None)) is not None]
    if len(seen) == len(alive):
        measured.all_ms = (max(seen.values()) - measured.killed_at) * 1000
    if not issued:
        return
    measured.issued_ms = (min(issued) - measured.killed_at) * 1000
    for answers in after.values():
        refused = [a for a in answers if not a.admitted and a.sent < min(issued)]
        measured.refused += len(refused)
        if refused:
            end = next((a.at for a in answers if a.admitted and a.sent > refused[-1].sent), answers[-1].at)
            measured.stretch_ms = max(measured.stretch_ms, (end - refused[0].sent) * 1000)


class Rounds:
    """A fleet that loses an owner again and again: a window with a death, then one in which the node comes back."""

    def __init__(self, ground, asker, fleet, seed, way):
        self.ground, self.asker, self.fleet, self.way = ground, asker, fleet, way
        self.random = random.Random(seed)
        self.found = []

    def run(self, times):
        for _ in range(times):
            if self.ground.ended.is_set():
                break
            self.asker.check()
            self.found += self.one()
        return self.found

    def one(self):
        nodes = self.fleet.nodes
        victim = self.random.choice(nodes)
        keys = {kind: keys_of(self.ground, self.fleet, kind, lambda group: group[0] is victim, 1)[0] for kind in KINDS}
        alive = [node for node in nodes if node is not victim]
        window = next_window(WINDOW_S)
        begin = window * WINDOW_S
        sleep_until(begin)
        streams = {kind: self.asker.stream(nodes, kind, key, 0, self.random.random()) for kind, key in keys.items()}
        with questions(nodes) as ask:
            before = self.load_until_the_moment(begin, streams, keys, ask, alive)
            unspent = {kind: ask.unspent(victim, kind, key) for kind, key in keys.items()}
            victim_pid = victim.child.pid
            os.kill(victim_pid, signal.SIGSTOP if self.way == "hung" else signal.SIGKILL)
            killed_at = time.time()
            seen = watch(ask, alive, keys, before, killed_at)
        if self.way == "hung":
            time.sleep(self.random.uniform(0, 0.5))
            os.kill(victim_pid, signal.SIGCONT)
        measured = [Measured(kind, killed_at) for kind in keys]
        sleep_until(begin + WINDOW_S - ANSWERS_S)
        for stream in streams.values():
            stream.pause()
        sleep_until(begin + WINDOW_S)
        ready_s = self.the_window_after(victim, streams, begin + WINDOW_S)
        for each in measured:
            stream = streams[each.kind]
            look_at(each, stream, seen[each.kind], alive)
            each.admitted, each.perhaps = in_window(stream.answers, window, WINDOW_S)
            each.after, _ = in_window(stream.answers, window + 1, WINDOW_S)
            each.ready_s, each.unspent = ready_s, unspent[each.kind]
            stream.ended = True
        return measured

    def load_until_the_moment(self, begin, streams, keys, ask, alive):
        """Returns the highest ballot of each key by then."""
        if self.way == "burst":
            sleep_until(begin + self.random.uniform(0.05, 0.3) * WINDOW_S)
            for stream in streams.values():
                stream.burst(LIMIT // 2)
        for stream in streams.values():
            stream.go(rate())
        if self.way == "burst":
            time.sleep(self.random.uniform(0.005, 0.05))
        else:
            sleep_until(begin + self.random.uniform(0.02, 0.35 if self.way == "hung" else 0.55) * WINDOW_S)
        return {kind: max(ask.ballot_and_ceiling(node, kind, key)[0] for node in alive) for kind, key in keys.items()}

    def the_window_after(self, victim, streams, begin):
        """The load goes on; a node that was killed comes back at a random moment of the first fifth."""
        for stream in streams.values():
            stream.go(rate())
        ready_s = None
        if self.way != "hung":
            victim.child.kill()
            sleep_until(begin + self.random.uniform(0, 0.2) * WINDOW_S)
            ready_s = start_again(victim)
        sleep_until(begin + WINDOW_S - ANSWERS_S)
        for stream in streams.values():
            stream.pause()
        sleep_until(begin + WINDOW_S)
        return ready_s


def failover(ground, way, case, title, times):
    ground.say(f"\n{case}: {title}; {times} times, {LIMIT} per {WINDOW_S} s, {rate():.0f} asks a second over {NODES} nodes")
    fleets = len(POLICIES) if times >= len(POLICIES) else 1
    share = [times // fleets + (i < times % fleets) for i in range(fleets)]
    rules = [[rule(kind, LIMIT, WINDOW_S, e, policy) for kind, e in KINDS.items()] for policy in POLICIES]
    with contextlib.ExitStack() as stack:
        all_fleets = [stack.enter_context(ground.fleet(NODES, each)) for each in rules[:fleets]]
        asker = stack.enter_context(ground.asker())
        parts = [(Rounds(ground, asker, fleet, f"{ground.seed} {case} {i}", way), share[i]) for i, fleet in enumerate(all_fleets)]
        found = [each for several in ground.side_by_side(lambda part: part[0].run(part[1]), parts) for each in several]
    for kind, overcount in KINDS.items():
        yield from rows_of(f"{case}, {kind}", [each for each in found if each.kind == kind], bound_of(LIMIT, overcount))
    if way != "hung":
        yield shown(case, "the killed one ready again after", [each.ready_s for each in found if each.kind == "strict"], "s")


def rows_of(name, found, bound):
    never = SEEN_S * 1000  # no new owner: shown as the end of the patience, which is beyond the goal
    yield at_most(name, "new owner issues again after", GOAL_MS, [never if each.issued_ms is None else each.issued_ms for each in found], "ms")
    yield shown(name, "all nodes have something of it after", [never if each.all_ms is None else each.all_ms for each in found], "ms")
    yield shown(name, "longest time refused at a node", [each.stretch_ms for each in found], "ms")
    yield shown(name, "asks refused until then", [each.refused for each in found])
    yield at_least(name, "admitted of L in that window", GOAL_PART, [100 * each.admitted / LIMIT for each in found], "%")
    yield shown(name, "granted to the dead node and unspent", [each.unspent for each in found])
    yield at_most(name, "admitted, the bound", bound, [each.admitted for each in found])
    yield at_most(name, "admitted in the window after, the bound", bound, [each.after for each in found])
    yield shown(name, "admitted of L in the window after", [100 * each.after / LIMIT for each in found], "%", min)
    unclear = sum(each.perhaps for each in found)
    if unclear:
        yield shown(name, "answers across a window's end, in neither", [each.perhaps for each in found])


def killed(ground):
    yield from failover(ground, "killed", "failover", "a key's owner is killed at a random moment under load", ground.runs)


def burst(ground):
    yield from failover(ground, "burst", "burst", "the owner is killed right after a burst of half the limit", max(1, ground.runs // 2))


def hung(ground):
    yield from failover(ground, "hung", "hung", "the owner stands still, and goes on when another has taken over", max(1, ground.runs // 2))


CASES = {"failover": (killed, "a key's owner is killed under load"),
         "burst": (burst, "the same right after a burst of half the limit"),
         "hung": (hung, "the owner is stopped (SIGSTOP) and goes on after the failover")}
