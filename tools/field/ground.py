"""What the cases share: where processes live, fleets, chance, load, windows, questions about a key."""
import contextlib
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from asks import Asker
from fleet import READY_S, DemoError, Fleet, Resp, as_map

BATCH = 50         # questions that are asked at once
ANSWERS_S = 0.15  # before a window's end asks pause for so long, so that each answer belongs to one window


def rule(name, limit, window_s, overcount, policy="closed", **more):
    return {"name": name, "algorithm": "fixed_window", "limit": limit, "window": f"{window_s}s", "max_overcount": overcount,
            "on_isolation": policy, **more}


class Ground:
    def __init__(self, place, runs, seed, say):
        self.place, self.runs, self.seed, self.say = place, runs, seed, say
        self.random = random.Random(seed)      # victims and moments
        self.keys = random.Random(f"{seed} keys")  # apart: how many are drawn depends on the ports that the nodes got

        self.ended = threading.Event()

    def fresh_key(self):
        return f"{self.keys.getrandbits(64):016x}"

    @contextlib.contextmanager
    def fleet(self, count, rules, **more):
        started = time.monotonic()
        fleet = Fleet(self.place, count, rules, **more)
        self.say(f"[{count} tallyd processes, one fleet, ready after {time.monotonic() - started:.1f} s]")
        try:
            yield fleet
        finally:
            fleet.stop()

    @contextlib.contextmanager
    def asker(self):
        asker = Asker()
        try:
            yield asker
        finally:
            asker.stop()

    def side_by_side(self, do, parts):
        """do(part) for each at the same time, in threads that live until the processes they started are not needed.

        A process that was started here dies with the thread that started it, hence the threads end with the `with`.
        """
        pool = ThreadPoolExecutor(len(parts))
        try:
            return [each.result() for each in [pool.submit(do, part) for part in parts]]
        finally:
            self.ended.set()  # where one failed, or we are told to end: the others after their round
            pool.shutdown()
            self.ended.clear()


class Questions:
    """A connection to each of some nodes, for EXPLAIN."""

    def __init__(self, nodes):
        self.connections = {node.name: Resp(node.socket) for node in nodes}

    def explain(self, node, rule_name, key):
        return as_map(self.connections[node.name]("TALLY.EXPLAIN", rule_name, key))

    def ballot_and_ceiling(self, node, rule_name, key):
        """The number of the highest ballot that the node has heard of for the key, and what it may admit in all."""
        told = self.explain(node, rule_name, key)
        return int(str(told["ballot"]).split()[0]), int(told["ceiling"])

    def unspent(self, node, rule_name, key):
        told = self.explain(node, rule_name, key)
        return int(told["ceiling"]) - int(told["used_here"])

    def groups(self, fleet, node, rule_name, keys):
        """Of many keys: asked in batches, one round trip each."""
        connection = self.connections[node.name]
        found = []
        for begin in range(0, len(keys), BATCH):
            some = keys[begin:begin + BATCH]
            found += [as_map(told)["group"] for told in connection.many([("TALLY.EXPLAIN", rule_name, key) for key in some])]
        by_entry = {each.entry: each for each in fleet.nodes}
        return [[by_entry[entry] for entry in group] for group in found]

    def close(self):
        for connection in self.connections.values():
            connection.close()


@contextlib.contextmanager
def questions(nodes):
    asked = Questions(nodes)
    try:
        yield asked
    finally:
        asked.close()


def keys_of(ground, fleet, rule_name, wanted, count):
    """Fresh keys of which `wanted(group)` is true; asked of a node that lives."""
    alive = next(node for node in fleet.nodes if node.child.alive())
    found, tried = [], 0
    with questions([alive]) as ask:
        while tried < 10_000 + 200 * count:
            keys = [ground.fresh_key() for _ in range(BATCH)]
            tried += BATCH
            found += [key for key, group in zip(keys, ask.groups(fleet, alive, rule_name, keys)) if wanted(group)]
            if len(found) >= count:
                return found[:count]
    raise DemoError("no such key was found")


def start_again(node):
    """After its process ended. Returns how long it took until the node was ready."""
    node.start()
    return wait_ready(node)


def wait_ready(node):
    begun = time.monotonic()
    while not node.ready():
        if time.monotonic() - begun > READY_S:
            raise DemoError(f"{node.name} was not ready again within {READY_S} s")
        time.sleep(0.01)
    return time.monotonic() - begun


# Windows of a rule are numbered by the wall clock.

def next_window(window_s, room_s=0.3):
    """The first window that begins no sooner than in `room_s`."""
    return int((time.time() + room_s) // window_s) + 1


def sleep_until(wall):
    while (left := wall - time.time()) > 0:
        time.sleep(left)


def in_window(answers, window, window_s):
    """(admitted for certain in it, admitted perhaps in it): an answer across the boundary may belong to either side."""
    certain = perhaps = 0
    for answer in answers:
        if answer.admitted:
            first, last = int(answer.sent // window_s), int(answer.at // window_s)
            certain += first == last == window
            perhaps += first != last and window in (first, last)
    return certain, perhaps
