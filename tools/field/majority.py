"""A key's group without a majority: two of its three are dead, or one of a fleet of two."""
import json
import os
import signal
import subprocess
import time

from ground import ANSWERS_S, in_window, keys_of, next_window, questions, rule, sleep_until, wait_ready
from rows import at_most, holds, shown
from world import bound_of

LIMIT, WINDOW_S = 1000, 10
RATE = 1.5 * LIMIT / WINDOW_S
KINDS = {"strict": 0, "5%": "5%"}
RULES = [rule(kind, LIMIT, WINDOW_S, e) for kind, e in KINDS.items()]
UNDER_WAY_S = 0.3   # what had been issued by the death has arrived by then
SAID_S = 5          # patience with the log and the metrics
GRANTED_S = 0.1     # a whole window's first grants are there by then
FLOOR_ASKS = 60     # more than any floor here


class Loss:
    """Three windows: in the first the nodes die, in the second they come back, in the third all is as before."""

    def __init__(self, ground, fleet, asker, dead, alive, keys, fresh):
        self.ground, self.fleet, self.asker = ground, fleet, asker
        self.dead, self.alive, self.keys, self.fresh = dead, alive, keys, fresh
        self.first = next_window(WINDOW_S)

    def begin_of(self, i):
        return (self.first + i) * WINDOW_S

    def run(self):
        sleep_until(self.begin_of(0))
        self.streams = {kind: self.asker.stream(self.fleet.nodes, kind, key, RATE, self.ground.random.random()) for kind, key in self.keys.items()}
        sleep_until(self.begin_of(0) + self.ground.random.uniform(0.2, 0.4) * WINDOW_S)
        self.killed_at = time.time()
        for node in self.dead:
            os.kill(node.child.pid, signal.SIGKILL)
        with questions(self.alive) as ask:
            self._the_rest_of_the_window(ask)
        self._back_in_the_second()
        self._whole_in_the_third()
        for stream in self.streams.values():
            stream.ended = True
        self.asker.check()

    def _the_rest_of_the_window(self, ask):
        sleep_until(self.killed_at + UNDER_WAY_S)
        held, marks = self._ceilings(ask), self._marks(ask)
        self.said = {what: self._said(test) for what, test in SAID.items()}
        self.floors = self._floors(ask)
        self._rest(0)
        self.issued = {kind: sum(n) - sum(held[kind]) for kind, n in self._ceilings(ask).items()}
        self.beyond = {kind: max(0, n - max(0, marks[kind] - sum(held[kind]))) for kind, n in self.issued.items()}
        sleep_until(self.begin_of(1))

    def _ceilings(self, ask):
        return {kind: [int(ask.explain(node, kind, key)["ceiling"]) for node in self.alive] for kind, key in self.keys.items()}

    def _marks(self, ask):
        """What a majority had accepted while there was one, of an owner that lives."""
        return {kind: max(int(ask.explain(node, kind, key)["mark"]) for node in self.alive) for kind, key in self.keys.items()}

    def _said(self, test):
        """Seconds from the death until it was said, by all that live; None: it never was."""
        while time.time() < self.killed_at + SAID_S:
            if test(self):
                return time.time() - self.killed_at
            time.sleep(0.02)
        return None

    def _floors(self, ask):
        """[(admitted, floor), ...] of a fresh key of the same group at each node."""
        found = []
        for node in self.alive:
            floor = int(ask.explain(node, "5%", self.fresh)["floor"])
            admitted = sum(node.ask("TALLY.TAKE", "5%", self.fresh)[0] == 0 for _ in range(FLOOR_ASKS))
            found.append((admitted, floor))
        return found

    def _rest(self, i):
        sleep_until(self.begin_of(i + 1) - ANSWERS_S)
        for stream in self.streams.values():
            stream.pause()
        time.sleep(ANSWERS_S / 2)

    def _go(self):
        for stream in self.streams.values():
            stream.go(RATE)

    def _back_in_the_second(self):
        self._go()
        sleep_until(self.begin_of(1) + self.ground.random.uniform(0.3, 0.5) * WINDOW_S)
        for node in self.dead:
            node.child.kill()
            node.start()
        self.ready_s = max(wait_ready(node) for node in self.dead)
        self.ready_at = time.time()
        self._rest(1)
        sleep_until(self.begin_of(2))

    def _whole_in_the_third(self):
        self._go()
        self._rest(2)
        sleep_until(self.begin_of(3))
        self.granted = [a.at for a in self.streams["strict"].answers if a.admitted and a.at >= self.ready_at]

    def granted_after(self, wall):
        """Seconds until a strict ask was admitted; where none was, the length of a window."""
        return max(0.0, min(self.granted, default=wall + WINDOW_S) - wall)

    def admitted(self, kind, i):
        return in_window(self.streams[kind].answers, self.first + i, WINDOW_S)[0]

    def floor_sum(self):
        return sum(floor for _, floor in self.floors)


def metric(node, name, **labels):
    return [value for has_name, has, value in node.metrics() if has_name == name and all(has.get(k) == v for k, v in labels.items())]


def peers_down(loss):
    """`tally peers` shows the dead as down, at each node that lives."""
    for node in loss.alive:
        told = subprocess.run([loss.fleet.place.program("tally"), "-s", str(node.socket), "--json", "peers"], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=10)
        peers = json.loads(told.stdout)
        if any(peers[gone.entry]["up"] for gone in loss.dead):
            return False
    return True


SAID = {
    "tallyd_peer_up is 0 for the dead": lambda loss: all(
        metric(node, "tallyd_peer_up", peer=gone.entry) == [0] for node in loss.alive for gone in loss.dead),
    "tallyd_keys_without_majority is above 0 at a node": lambda loss: any(
        sum(metric(node, "tallyd_keys_without_majority")) > 0 for node in loss.alive),
    "the log: peer is silent": lambda loss: all(
        f"peer is silent peer={gone.entry}" in node.child.log.read_text() or f'peer is silent peer="{gone.entry}"' in node.child.log.read_text()
        for node in loss.alive for gone in loss.dead),
    "tally peers shows them down": peers_down,
}


def two_of_three(ground):
    times = max(1, ground.runs // 10)
    ground.say(f"\ntwo-of-three: two of a key's group are killed at once; {LIMIT} per {WINDOW_S} s, {RATE:.0f} asks a second over 5 nodes; {times} times")
    with ground.fleet(5, RULES) as fleet, ground.asker() as asker:
        losses = [lose(ground, fleet, asker, 2) for _ in range(times)]
    yield from rows_of("two-of-three", losses, 5)


def fleet_of_two(ground):
    times = max(1, ground.runs // 10)
    ground.say(f"\nfleet-of-two: one of two nodes is killed; {LIMIT} per {WINDOW_S} s, {RATE:.0f} asks a second; {times} times")
    with ground.fleet(2, RULES) as fleet, ground.asker() as asker:
        warned = ["a fleet of two: both must live" in node.child.log.read_text() for node in fleet.nodes]
        losses = [lose(ground, fleet, asker, 1) for _ in range(times)]
    yield holds("fleet-of-two", "a warning at the start", warned)
    yield from rows_of("fleet-of-two", losses, 2)


def lose(ground, fleet, asker, count):
    """`count` of the group of some keys, the owner among them or, in a fleet of two, by turns."""
    group = ground.random.sample(fleet.nodes, min(3, len(fleet.nodes)))
    dead = group[:count] if len(fleet.nodes) > 2 else [ground.random.choice(group)]
    alive = [node for node in fleet.nodes if node not in dead]
    keys = {kind: keys_of(ground, fleet, kind, lambda has: has == group, 1)[0] for kind in KINDS}
    fresh = keys_of(ground, fleet, "5%", lambda has: has == group, 1)[0]
    loss = Loss(ground, fleet, asker, dead, alive, keys, fresh)
    loss.run()
    return loss


def rows_of(case, losses, size):
    for what in SAID:
        yield holds(case, f"said: {what}", [loss.said[what] is not None for loss in losses])
    yield shown(case, "all of that said after", [max(s for s in loss.said.values() if s is not None) for loss in losses if any(loss.said.values())], "s")
    yield holds(case, "floors go on: a fresh key gets each node's, no more", [all(a == f for a, f in loss.floors) for loss in losses])
    for kind, overcount in KINDS.items():
        yield at_most(case, f"{kind}: issued after the death beyond the mark of before", 0, [loss.beyond[kind] for loss in losses])
        yield shown(case, f"{kind}: issued from {UNDER_WAY_S:g} s after the death to the window's end", [loss.issued[kind] for loss in losses])
        yield at_most(case, f"{kind}: admitted in the three windows, the bound", bound_of(LIMIT, overcount),
                      [max(loss.admitted(kind, i) for i in range(3)) for loss in losses])
        yield shown(case, f"{kind}: admitted of L in the window of the death", [loss.admitted(kind, 0) / LIMIT * 100 for loss in losses], "%", min)
        yield shown(case, f"{kind}: admitted in the next, in which they come back", [loss.admitted(kind, 1) for loss in losses], "", min)
        yield shown(case, f"{kind}: admitted of L in the one after that", [loss.admitted(kind, 2) / LIMIT * 100 for loss in losses], "%", min)
    yield shown(case, "ready again after", [loss.ready_s for loss in losses], "s")
    yield shown(case, "first grant after they are ready", [loss.granted_after(loss.ready_at) for loss in losses], "s")
    yield at_most(case, "first grant after they are ready and a window has begun", GRANTED_S, [loss.granted_after(loss.begin_of(2)) for loss in losses], "s")


CASES = {"two-of-three": (two_of_three, "two of a key's group are killed"),
         "fleet-of-two": (fleet_of_two, "one of two nodes is killed")}
