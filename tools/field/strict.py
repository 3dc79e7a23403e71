"""Fresh keys whose owner is dead: their first asks wait for a grant of somebody else."""
from fleet import DemoError, Load
from ground import keys_of, next_window, rule, sleep_until, start_again
from rows import at_most, shown

NODES = 5
KEYS, LIMIT, WINDOW_S = 1000, 5, 5
KILL_S = 0.3       # after the window's begin
ASKED_FOR_S = 1.0  # the fresh keys are asked for one by one over this time, from the death on
GRACE_MS = 200
QUIET_MS = 500     # in a fleet that asks a dead node nothing nobody notices: the grace begins with the first ask
BUCKET_MS = 10
LATE_MS = 10       # half of what an ask waits
PATIENCE = 5       # so often a run is repeated


def strict(ground):
    """Each fresh key is asked for once, at a node that lives; who is denied is a person who was let in nowhere."""
    times = max(1, ground.runs // 4)
    ground.say(f"\nstrict: {KEYS} fresh keys of a dead owner, {LIMIT} each, first asks over {ASKED_FOR_S:g} s after its death; {times} times")
    rules = [rule("login", LIMIT, WINDOW_S, 0, wait="20ms")]
    with ground.fleet(NODES, rules) as fleet:
        trials = Trials(ground, fleet, Load(ground.place))
        found = [(trials.undisturbed(0), trials.undisturbed(QUIET_MS)) for _ in range(times)]
    busy, quiet = zip(*found)
    early = [sum(n for ms, n in by_time.items() if ms < GRACE_MS) for by_time in busy]
    late = [sum(n for ms, n in by_time.items() if ms >= GRACE_MS) for by_time in busy]
    last = [max(by_time, default=-BUCKET_MS) + BUCKET_MS for by_time in busy]
    yield shown("strict", f"denied of the {int(KEYS * GRACE_MS / 1000 / ASKED_FOR_S)} asked in the first {GRACE_MS} ms", early)
    yield at_most("strict", f"denied of those asked later than {GRACE_MS} ms", 0, late)
    yield shown("strict", "the last one denied was asked before", last, "ms")
    quietly = f"nobody asks for {QUIET_MS} ms"
    yield shown("strict", f"{quietly}: denied of {KEYS}", [sum(each.values()) for each in quiet])
    yield at_most("strict", f"{quietly}: the last one denied was asked after the first by", GRACE_MS,
                  [max(each, default=QUIET_MS - BUCKET_MS) + BUCKET_MS - QUIET_MS for each in quiet], "ms")
    yield shown("strict", "runs repeated as the machine stood still", [trials.repeated])


class Trials:
    def __init__(self, ground, fleet, load):
        self.ground, self.fleet, self.load, self.repeated = ground, fleet, load, 0

    def undisturbed(self, first_ms):
        """Who gets no processor for 20 ms lets asks wait in vain, dead owner or not. A run in which that happened to the load, or to asks
        that nobody's death concerns, is repeated; if it happens in every run it is not the machine.
        """
        for _ in range(PATIENCE):
            denied_when, others, late_ms = self._one(first_ms)
            if late_ms <= LATE_MS and others == 0:
                return denied_when
            self.repeated += 1
            self.ground.say(f"[asks left up to {late_ms:.0f} ms late, and {others} were denied that nobody's death concerns: once more]")
        raise DemoError(f"disturbed {PATIENCE} times: give the daemons more of the machine (nice -n -15)")

    def _one(self, first_ms):
        """The first is asked for so long after the death. {ms after the death: denied}, denied of as many others, how late an ask left."""
        ground, fleet, load = self.ground, self.fleet, self.load
        victim = ground.random.choice(fleet.nodes)
        alive = [node for node in fleet.nodes if node is not victim]
        keys = keys_of(ground, fleet, "login", lambda group: group[0] is victim, KEYS)
        others = keys_of(ground, fleet, "login", lambda group: victim not in group, KEYS)
        for node in alive:
            load.open(node.name, node.socket)
        sleep_until(next_window(WINDOW_S) * WINDOW_S + KILL_S)
        load.kill(0, victim.child.pid)
        for i, pair in enumerate(zip(keys, others)):
            at_ms = first_ms + int(1000 * ASKED_FOR_S * i / len(keys))
            for group, key in zip((f"b{at_ms // BUCKET_MS}", "others"), pair):
                load.shot(at_ms / 1000, f"{group}/x", ground.random.choice(alive).name, f"take login {key}")
        outcome = load.run(20)
        victim.child.kill()
        load.forget(victim.name)
        start_again(victim)
        by_time = {bucket * BUCKET_MS: denied(outcome, f"b{bucket}") for bucket in range(int(first_ms + 1000 * ASKED_FOR_S) // BUCKET_MS)}
        return {ms: n for ms, n in by_time.items() if n}, denied(outcome, "others"), outcome.late_ms


def denied(outcome, group):
    return outcome.offered(group) - outcome.admitted(group)


CASES = {"strict": (strict, "fresh strict keys of a dead owner are granted by the next one")}
