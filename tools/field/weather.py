"""What a fleet admits while its network loses, repeats, reorders and delays: never more than the bound, and little less than was asked for."""
from fleet import as_map
from hosts import HostFleet, on_hosts
from network import Network
from rows import at_least, at_most, shown
from timeline import Timeline, undisturbed

HOSTS = [f"h{n}" for n in range(1, 7)]
LIMIT, WINDOW_S, WINDOWS = 1000, 10, 3
UNDER, OVER = 0.92, 1.5  # of the limit, asked for under two keys
ADMITTED_PART = 95       # % of what is asked for under the limit
BAD = {"loss": 0.05, "duplicate": 0.05, "reorder": 0.05, "hold": 40}
WEATHERS = {"clean": ("nothing between the hosts", {"delay": 0}),
            "lossy": ("5 % lost, 5 % twice, 5 % 40 ms late", BAD),
            "far": ("30 ms each way", {"delay": 30}),
            "far-lossy": ("30 ms each way, up to 5 ms more, 5 % lost, 5 % twice, 5 % 40 ms late", {"delay": 30, "jitter": 5, **BAD})}


def rules():
    return [{"name": name, "algorithm": "fixed_window", "limit": LIMIT, "window": f"{WINDOW_S}s", "max_overcount": e, "on_isolation": "closed"}
            for name, e in (("strict", 0), ("5%", "5%"))]


def uneven(hosts):
    """The k-th busiest has a share of 1/k."""
    weights = [1 / (k + 1) for k in range(len(hosts))]
    return [weight / sum(weights) for weight in weights]


def windows():
    return {f"w{n}": (n * WINDOW_S, (n + 1) * WINDOW_S) for n in range(WINDOWS)}


def run(ground, fleet):
    """(timeline, {rule: {"under": key, "over": key}})"""
    line = Timeline(ground.place, WINDOW_S, windows(), ground.random.random())
    keys = {rule["name"]: {"under": ground.fresh_key(), "over": ground.fresh_key()} for rule in fleet.rules}
    for rule, each in keys.items():
        for part, key in ((UNDER, each["under"]), (OVER, each["over"])):
            for share, node in zip(uneven(fleet.nodes), fleet.nodes):
                line.ask(rule, key, node, part * share * LIMIT / WINDOW_S)
    return line.run(), keys


def rows_of(fleet, line, keys, title):
    for rule, each in keys.items():
        bound = as_map(fleet.nodes[0].ask("TALLY.EXPLAIN", rule, each["over"]))["bound"]
        admitted = {name: [line.admitted(keys=[key], phases=[window]) for window in windows()] for name, key in each.items()}
        offered = [line.total("offered", keys=[each["under"]], phases=[window]) for window in windows()]
        yield at_most(f"{title}, {rule}", "admitted in a window, the bound", bound, admitted["under"] + admitted["over"])
        yield at_least(f"{title}, {rule}", f"admitted of {100 * UNDER:.0f} % of L", ADMITTED_PART,
                       [100 * n / of for n, of in zip(admitted["under"], offered)], "%")
        yield shown(f"{title}, {rule}", f"admitted of L, {100 * OVER:.0f} % asked for", [100 * n / LIMIT for n in admitted["over"]], "%", min)


def weather(ground, name):
    title, settings = WEATHERS[name]
    ground.say(f"{name}: {title}; {WINDOWS} windows of {WINDOW_S} s")
    with Network(HOSTS, seed=ground.random.getrandbits(32)) as network:
        network.set("*", "*", **settings)
        fleet = HostFleet(ground.place, network, rules())
        try:
            line, keys = undisturbed(ground.say, lambda: run(ground, fleet))
            yield from rows_of(fleet, line, keys, name)
        finally:
            fleet.stop()


CASES = {name: (on_hosts(name, lambda ground, name=name: weather(ground, name)), f"network: {title}") for name, (title, _) in WEATHERS.items()}
