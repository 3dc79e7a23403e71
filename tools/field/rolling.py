"""All nodes are restarted one after the other, under load, while long windows run that nobody may forget."""
import contextlib
import signal
import time

from ground import questions, rule, sleep_until, start_again
from rows import at_least, at_most, shown
from world import bound_of

NODES = 5
LIMIT, KEYS = 500, 10   # keys of each rule
DAY_S, HOUR_S = 86400, 3600
ROUND_S = {False: 8, True: 45}  # about what a round takes; where nothing was kept and a node is down for good, each start waits for it in vain
QUIET_S = 1.5           # no key has had anything for so long: there is nothing more to be had
FINISH_RATE = 60        # asks a second for each key then
DAYS = {"day, strict": 0, "day, 5%": "5%"}
BUCKET = "bucket of an hour"
RULES = [rule(name.replace(", ", "-"), LIMIT, DAY_S, e) for name, e in DAYS.items()] + [
    {"name": "bucket", "algorithm": "token_bucket", "rate": f"{LIMIT}/h", "burst": LIMIT, "max_overcount": "5%", "on_isolation": "closed"}]
IN_GROUP = ", dead in the group"
NAMES = {**{name: name.replace(", ", "-") for name in DAYS}, BUCKET: "bucket"}


class Key:
    def __init__(self, kind, stream, group):
        self.kind, self.stream, self.group = kind, stream, group
        self.in_the_round = 0  # admitted until all were ready again

    def admitted(self):
        return sum(answer.admitted for answer in self.stream.answers)

    def above_the_bound(self):
        """Tokens beyond what the rule allows, in the interval where that is most."""
        if self.kind != BUCKET:
            return self.admitted() - bound_of(LIMIT, DAYS[self.kind])
        answers = sorted((a for a in self.stream.answers if a.admitted), key=lambda a: a.at)
        rate, least, most = 1.05 * LIMIT / HOUR_S, float("inf"), 0.0
        for i, answer in enumerate(answers):
            least = min(least, i - rate * answer.sent)
            most = max(most, i + 1 - rate * answer.at - least)
        return most - bound_of(LIMIT, "5%")


class Round:
    """One fleet, every node restarted once; `dead`: one is killed before and stays away."""

    def __init__(self, ground, fleet, asker, number, dead):
        self.ground, self.fleet, self.asker, self.number = ground, fleet, asker, number
        self.gone = ground.random.choice(fleet.nodes) if dead else None
        self.nodes = [node for node in fleet.nodes if node is not self.gone]
        self.ready_s = []

    def run(self):
        room_in_the_day(2 * ROUND_S[True])
        self.keys = self._keys()
        if self.gone:
            self.gone.child.kill()
        rate = LIMIT / 2 / ROUND_S[self.gone is not None and self.number == signal.SIGKILL]
        for key in self.keys:
            key.stream.go(rate)
        time.sleep(1)
        for node in self.ground.random.sample(self.nodes, len(self.nodes)):
            node.child.process.send_signal(self.number)
            node.child.process.wait(15)
            self.ready_s.append(start_again(node))
        time.sleep(1)
        for key in self.keys:
            key.in_the_round = key.admitted()
            key.stream.go(FINISH_RATE)
        self._until_nothing_comes()
        for key in self.keys:
            key.stream.ended = True
        self.asker.check()

    def _keys(self):
        made = [(kind, self.ground.fresh_key()) for kind in NAMES for _ in range(KEYS)]
        with questions([self.nodes[0]]) as ask:
            groups = [ask.groups(self.fleet, self.nodes[0], NAMES[kind], [key])[0] for kind, key in made]
        return [Key(kind, self.asker.stream(self.nodes, NAMES[kind], key, 0, self.ground.random.random()), group)
                for (kind, key), group in zip(made, groups)]

    def _until_nothing_comes(self):
        before, since = -1, time.time()
        while time.time() - since < QUIET_S:
            time.sleep(0.1)
            now = sum(key.admitted() for key in self.keys)
            if now > before + len(self.keys) // 10:  # a bucket regrows
                before, since = now, time.time()


def room_in_the_day(seconds):
    left = DAY_S - time.time() % DAY_S
    if left < seconds:
        sleep_until(time.time() + left + 1)


def rolling(ground, case, number, dead):
    times = max(1, ground.runs // 20)
    ground.say(f"\n{case}: {NODES} nodes, {'one of them dead for good, ' if dead else ''}restarted one after the other by "
               f"{signal.Signals(number).name}; {KEYS} keys of {LIMIT} a rule; {times} times")
    rounds = []
    for _ in range(times):
        with contextlib.ExitStack() as stack:
            fleet = stack.enter_context(ground.fleet(NODES, RULES))
            made = Round(ground, fleet, stack.enter_context(ground.asker()), number, dead)
            made.run()
            rounds.append(made)
    for kind in NAMES:
        for what, keys in parts(rounds, kind, dead):
            yield from rows_of(f"{case}, {kind}{what}", keys, promised=number == signal.SIGTERM or not dead)
    yield shown(case, "a node ready again after", [s for each in rounds for s in each.ready_s], "s")


def parts(rounds, kind, dead):
    """[(which, keys), ...]: with a dead node, its groups' keys apart from the others."""
    keys = [(each, key) for each in rounds for key in each.keys if key.kind == kind]
    if not dead:
        return [("", [key for _, key in keys])]
    return [(IN_GROUP, [key for each, key in keys if each.gone in key.group]),
            (", dead in no group", [key for each, key in keys if each.gone not in key.group])]


def rows_of(name, keys, promised):
    """Killed, with a node dead for good, members forget what only the dead one could tell: nothing is promised then but the bound."""
    yield at_most(name, "admitted above the bound, by key", 0, [max(0.0, key.above_the_bound()) for key in keys])
    more = [key.admitted() - key.in_the_round for key in keys]
    if promised:
        yield at_least(name, "admitted after the round, by key", 1, more)
    else:
        yield shown(name, "admitted after the round, by key", more, "", min)
    yield shown(name, "admitted of L in the end, by key", [100 * key.admitted() / LIMIT for key in keys], "%", min)


def cases():
    for suffix, number in (("", signal.SIGTERM), ("-kill", signal.SIGKILL)):
        for dead in (False, True):
            name = f"rolling{suffix}{'-dead' if dead else ''}"
            what = f"restarts one by one by {number.name}{', one node dead for good' if dead else ''}"
            yield name, (lambda ground, name=name, number=number, dead=dead: rolling(ground, name, number, dead), what)


CASES = dict(cases())
