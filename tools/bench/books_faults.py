"""What a fleet admits where the Redis that has its books fails in the middle of the load: of each limit how much, and how many above their bound."""
import concurrent.futures
import time

from servers import DemoError
from fleet import Redis, wait_for

DAEMONS, SYNC_MS = 10, 100
LIMITS = 20         # of one key each, every other one strict
LIMIT = 20_000
OVERCOUNT = "10%"
SECONDS, FAULT_AFTER_S = 20, 1.0  # of load, as much as there can be


def bound(rule):
    return LIMIT if rule["max_overcount"] == 0 else LIMIT + LIMIT // 10


class Single:
    """A Redis of its own."""

    def __init__(self, place, name, settings=()):
        self.redis = Redis(place, name, settings=settings)
        self.url = f"unix:{self.redis.socket}?prefix={name}"

    def flush(self):
        self.redis.ask("FLUSHALL")

    def kill(self):
        self.redis.child.kill()
        self.redis.start()

    def stop(self):
        self.redis.child.stop()


class Watched:
    """A master, a replica and a Sentinel."""

    def __init__(self, place, name):
        entries = place.free_ports(3)
        ports = [entry.rpartition(":")[2] for entry in entries]
        self.first = Redis(place, f"{name}-first", port=ports[0])
        self.second = Redis(place, f"{name}-second", port=ports[1], settings=["--replicaof", place.address, ports[0], "--replica-announce-ip", place.address])
        conf = place.path / f"{name}-sentinel.conf"
        conf.write_text(f"sentinel monitor main {place.address} {ports[0]} 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n")
        wait_for(lambda: "master_link_status:up" in self.second.ask("INFO", "replication"), "the replica did not reach its master")
        self.sentinel = Redis(place, f"{name}-sentinel", port=ports[2], program=["redis-server", str(conf), "--sentinel"])  # it asks for replicas every 10 s
        self.url = f"redis-sentinel://{entries[2]}/main?prefix={name}"

    def fail_over(self):
        self.first.child.kill()

    def stop(self):
        for each in (self.first, self.second, self.sentinel):
            each.child.stop()


NO_LOG, LOG = (), ("--appendonly", "yes", "--appendfsync", "everysec")
FAULTS = {
    "none": (lambda place, name: Single(place, name), lambda server: None),
    "FLUSHALL": (lambda place, name: Single(place, name), Single.flush),
    "kill -9, no log": (lambda place, name: Single(place, name), Single.kill),
    "kill -9, a log": (lambda place, name: Single(place, name, settings=LOG), Single.kill),
    "failover by Sentinel": (Watched, Watched.fail_over),
}


def trial(books, name, number):
    """[{"max_overcount", "admitted"}, ...] of each limit."""
    start, fault = FAULTS[name]
    server = start(books.place, f"{''.join(filter(str.isalnum, name))}{number}")
    rules = [books.rule(f"r{i}", LIMIT, max_overcount=OVERCOUNT if i % 2 else 0, wait="20ms") for i in range(LIMITS)]
    fleet = books.fleet_at(server.url, rules)
    try:
        way = books.way("leased", fleet, ["take", *(rule["name"] for rule in rules)])
        with concurrent.futures.ThreadPoolExecutor(1) as others:
            load = others.submit(books.load, way, 1, number, connections=LIMITS, seconds=SECONDS)
            time.sleep(FAULT_AFTER_S)
            fault(server)
            load.result()
        if not all(node.child.alive() for node in fleet.nodes):
            raise DemoError("a daemon ended")
        return [{"max_overcount": rule["max_overcount"], "bound": bound(rule),
                 "admitted": fleet.sum("tallyd_decisions_total", rule=rule["name"], outcome="admitted")} for rule in rules]
    finally:
        fleet.stop()
        server.stop()


def show(rows):
    print(f"\n{DAEMONS} daemons, {LIMITS} limits of {LIMIT:,}, asked for far more; what Redis suffers after {FAULT_AFTER_S} s; admitted within {SECONDS} s")
    for name in FAULTS:
        limits = [each for row in rows if row["way"] == name for each in row["limits"]]
        if limits:
            shares = [each["admitted"] / LIMIT for each in limits]
            above = sum(each["admitted"] > each["bound"] for each in limits)
            print(f"{name:<24}{min(shares):.3f} to {max(shares):.3f} of the limit, {above} of {len(limits)} above their bound")
