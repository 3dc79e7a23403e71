"""Two regions that are fleets of their own, each of three aggregators and five edge hosts, and a world of three above them.

The layout, the distances, the fleets and the load. What is missing is the daemon's `cluster.upstream`: `sections` is the place for it. Until then a region counts
alone, which is what `alone` shows: each has the limit for itself.
"""
import contextlib

from fleet import as_map
from hosts import PORT, HostFleet, on_hosts
from network import Network
from rows import at_least, at_most
from timeline import Timeline, undisturbed

REGIONS = ("a", "b")
AGGREGATORS, EDGES = 3, 5
ROUND_TRIP_MS = 60         # between any two places; within one there is what the machine takes
PLACES = (*REGIONS, "c")   # the world has a host in each, so that losing any one place leaves it a majority
LIMIT, WINDOW_S = 1000, 10
RULE = {"name": "api", "algorithm": "fixed_window", "limit": LIMIT, "window": f"{WINDOW_S}s", "max_overcount": 0, "on_isolation": "closed"}


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


def sections(network, region):
    """What a region's nodes have in `cluster` beside what every fleet has."""
    return {"aggregators": entries(network, aggregators(region))}


@contextlib.contextmanager
def fleets(ground, network, rules):
    """{"world": fleet, "a": fleet, "b": fleet}"""
    started = {}
    try:
        started["world"] = HostFleet(ground.place, network, rules, world())
        for region in REGIONS:
            started[region] = HostFleet(ground.place, network, rules, aggregators(region) + edges(region), **sections(network, region))
        yield started
    finally:
        for fleet in started.values():
            fleet.stop()


def edge_nodes(started, region):
    return started[region].on(edges(region))


def plan_load(line, started, rule, key, parts):
    """`parts`: {region: the part of the limit that is asked for there in each window}, spread evenly over its edge hosts."""
    for region, part in parts.items():
        nodes = edge_nodes(started, region)
        for node in nodes:
            line.ask(rule, key, node, part * LIMIT / WINDOW_S / len(nodes))


def alone(ground):
    ground.say(f"regions: {len(REGIONS)} regions of {AGGREGATORS} aggregators and {EDGES} edge hosts, a world of {len(PLACES)}, {ROUND_TRIP_MS} ms apart")
    with lay_out() as network, fleets(ground, network, [RULE]) as started:
        def once():
            key = ground.fresh_key()
            line = Timeline(ground.place, WINDOW_S, {"w0": (0, WINDOW_S)}, ground.random.random())
            plan_load(line, started, RULE["name"], key, {region: 1.5 for region in REGIONS})
            return line.run(), key

        line, key = undisturbed(ground.say, once)
        for region in REGIONS:
            bound = as_map(edge_nodes(started, region)[0].ask("TALLY.EXPLAIN", RULE["name"], key))["bound"]
            admitted = line.admitted(hosts=edges(region))
            yield at_most("regions", f"region {region} alone, admitted in a window", bound, [admitted])
            yield at_least("regions", f"region {region} alone, admitted of L", 95, [100 * admitted / LIMIT], "%")


CASES = {"regions": (on_hosts("regions", alone), "two regions with aggregators, each counting alone")}
