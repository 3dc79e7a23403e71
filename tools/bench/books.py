#!/usr/bin/env python3
"""Ten daemons with their books in one Redis, beside the same daemons asking it for each decision, and plain clients that do so; see --help.

All share the machine: decisions a second are what they reach together, unpaced; times are of the same rate offered to each.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
from figures import ended, goal, show_goals, spread, turns, write  # noqa: E402
import books_faults  # noqa: E402
from servers import HERE, DemoError  # noqa: E402
from fleet import Fleet, Redis, Workplace, wait_for  # noqa: E402

DAEMONS, CONNECTIONS, SYNC_MS = 10, 2, 100
HOT_KEYS, MANY_KEYS = 20, 10_000
RATE = 500        # decisions a second offered at each daemon, where times are measured
NEVER = 2**31     # a limit that is not reached
LIMIT = 20_000    # one that is
PARTS = ("speed", "bound", "faults")
FEWER_COMMANDS, ADMITTED = 50, 0.99  # what is to be reached, at least


def arguments():
    parser = argparse.ArgumentParser(prog="tools/bench/run.sh --only books --", description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--json", help="where the figures go, as JSON")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"which of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    return parser.parse_args()


def cpu_s(pid):
    """User and system time of a process."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def commands(redis):
    """How many it carried out that came from a client, not from a script."""
    calls = {line.split(":")[0].removeprefix("cmdstat_"): int(line.split("calls=")[1].split(",")[0])
             for line in redis.ask("INFO", "commandstats").splitlines() if line.startswith("cmdstat_")}
    return sum(calls.get(name, 0) for name in ("evalsha", "eval", "incr", "expire"))


class Way:
    """What the load is sent to: a path for each of ten hosts, and the processes that decide there."""

    def __init__(self, name, paths, pids, request):
        self.name, self.paths, self.pids, self.request = name, paths, pids, list(map(str, request))


def rule(name, limit=NEVER, **more):
    return {"name": name, "limit": limit, "window": "1d", "algorithm": "fixed_window", "max_overcount": 0, "on_isolation": "closed", "wait": "1s", **more}


class Books:
    def __init__(self, place, options):
        self.place, self.options, self.redis, self.rounds = place, options, Redis(place), []

    rule = staticmethod(rule)

    def fleet(self, name, rules, **cluster):
        """Each with names of its own in Redis."""
        return self.fleet_at(f"unix:{self.redis.socket}?prefix={name}", rules, **cluster)

    def fleet_at(self, url, rules, **cluster):
        """It begins when the quiet time of new books is over."""
        fleet = Fleet(self.place, DAEMONS, [*rules, rule("warm-up")], sync_ms=SYNC_MS, cluster={"books": url, **cluster})
        for node in fleet.nodes:
            wait_for(lambda node=node: node.ask("TALLY.TAKE", "warm-up", "any")[0] == 0, f"{node.name} got no grant")
        return fleet

    @staticmethod
    def way(name, fleet, request):
        return Way(name, [node.socket for node in fleet.nodes], [node.child.pid for node in fleet.nodes], request)

    def ways(self):
        limits = [rule("bench")]
        for name, cluster in (("leased", {}), ("central", {"mode": "central"})):
            yield self.way(name, self.fleet(name, limits, **cluster), ["take", "bench"])
        plain = [self.redis.socket] * DAEMONS
        sha = self.redis.ask("SCRIPT", "LOAD", (HERE / "gcra.lua").read_text())
        yield Way("plain, INCR and EXPIRE", plain, [], ["incr_expire", 3600])
        yield Way("plain, GCRA in Lua", plain, [], ["evalsha", sha, 6, NEVER - 1, NEVER, 3600, 1])

    def load(self, way, keys, seed, rate=0, connections=CONNECTIONS, seconds=None, only=DAEMONS):
        """All hosts at once; what each generator said."""
        options = ["--sleep"] if rate else []
        started = [subprocess.Popen([self.place.program("tally_generator"), *options, str(path), str(self.redis.child.pid), str(connections), "1",
                                     str(seconds or self.options.seconds), str(keys), str(seed * DAEMONS + host), str(rate), *way.request],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for host, path in enumerate(way.paths[:only])]
        try:
            said = [(each, *each.communicate(timeout=(seconds or self.options.seconds) + 120)) for each in started]
        finally:
            for each in started:
                if each.poll() is None:
                    each.kill()
                    each.wait()
        for each, _, err in said:
            if each.returncode != 0:
                raise DemoError(f"the generator: {err.strip()}")
        return [json.loads(out) for _, out, _ in said]

    # --- decisions, their times, and what Redis has to do for them ---

    def speed(self):
        ways = list(self.ways())
        for keys, what in ((HOT_KEYS, "hot"), (MANY_KEYS, "many")):
            for number, way in turns(self.options.rounds, ways):
                before = commands(self.redis), cpu_s(self.redis.child.pid), sum(map(cpu_s, way.pids))
                free = self.load(way, keys, number)
                after = commands(self.redis), cpu_s(self.redis.child.pid), sum(map(cpu_s, way.pids))
                decisions = sum(each["decisions"] for each in free) + keys * DAEMONS  # these before it counts, once each
                paced = self.load(way, keys, number, rate=RATE)
                self.note(what, number, way.name, {
                    "per_second": sum(each["decisions"] / each["seconds"] for each in free),
                    "commands": (after[0] - before[0]) / decisions * 1e6, "redis_s": (after[1] - before[1]) / decisions * 1e6,
                    "daemons_s": (after[2] - before[2]) / decisions * 1e6,
                    "p50_us": statistics.median(each["batch_p50_us"] for each in paced), "p99_us": statistics.median(each["batch_p99_us"] for each in paced)})

    def note(self, part, number, way, figures):
        self.rounds.append({"part": part, "round": number, "way": way, **figures})
        print(f"{part}, round {number + 1}: {way}", file=sys.stderr, flush=True)

    def of(self, part, way, figure):
        return [row[figure] for row in self.rounds if row["part"] == part and row["way"] == way]

    def show_speed(self):
        for part, keys in (("hot", HOT_KEYS), ("many", MANY_KEYS)):
            names = list(dict.fromkeys(row["way"] for row in self.rounds if row["part"] == part))
            if not names:
                continue
            print(f"\n{keys:,} keys, {DAEMONS} daemons, sync interval {SYNC_MS} ms; CPU and commands of a million decisions; times at {RATE * DAEMONS:,} a second")
            print(f"{'':<24}decisions/s   commands   Redis CPU s   daemons' CPU s   p50 us   p99 us")
            for name in names:
                middle = {figure: statistics.median(self.of(part, name, figure)) for figure in ("per_second", "commands", "redis_s", "daemons_s", "p50_us", "p99_us")}
                print(f"{name:<24}{middle['per_second']:11,.0f}{middle['commands']:11,.0f}{middle['redis_s']:14.2f}{middle['daemons_s']:17.2f}"
                      f"{middle['p50_us']:9.0f}{middle['p99_us']:9.0f}")

    # --- what is admitted of a limit that ten, or two of them, ask for far more than ---

    def bound(self):
        """Each rule has one key, so that what was admitted of each is known."""
        for number in range(self.options.rounds):
            for hosts in (DAEMONS, 2):
                rules = [rule(f"r{i}", LIMIT, max_overcount="10%" if i % 2 else 0) for i in range(CONNECTIONS)]
                fleet = self.fleet(f"bound{number}of{hosts}", rules)
                way = self.way("leased", fleet, ["take", *(each["name"] for each in rules)])
                self.load(way, 1, number, only=hosts)
                for each in rules:
                    share = fleet.sum("tallyd_decisions_total", rule=each["name"], outcome="admitted") / LIMIT
                    self.note("bound", number, "leased", {"hosts": hosts, "max_overcount": each["max_overcount"], "admitted": share})
                fleet.stop()

    def show_bound(self):
        rows = [row for row in self.rounds if row["part"] == "bound"]
        print(f"\nadmitted of {LIMIT:,}, asked for far more (least and most of {self.options.rounds})")
        for hosts in (DAEMONS, 2):
            for most in (0, "10%"):
                shares = [row["admitted"] for row in rows if (row["hosts"], row["max_overcount"]) == (hosts, most)]
                print(f"{hosts:>2} of {DAEMONS} daemons, max_overcount {most}: {min(shares):.4f} to {max(shares):.4f}")

    # --- what is admitted where Redis fails ---

    def faults(self):
        for number in range(self.options.rounds):
            for name in books_faults.FAULTS:
                self.note("faults", number, name, {"limits": books_faults.trial(self, name, number)})

    def show_faults(self):
        books_faults.show([row for row in self.rounds if row["part"] == "faults"])

    def goals(self):
        goals = []
        fewer = spread([central / leased for central, leased in zip(self.of("hot", "central", "commands"), self.of("hot", "leased", "commands"))])
        if fewer:
            goals.append(goal("hot keys: commands of central to those of leased", FEWER_COMMANDS, fewer["median"], at_least=True))
        rows = [row for row in self.rounds if row["part"] == "bound"]
        for most, limit in ((0, 1.0), ("10%", 1.1)):
            shares = [row["admitted"] for row in rows if row["max_overcount"] == most]
            if shares:
                goals.append(goal(f"most admitted of a limit, max_overcount {most}", limit, max(shares)))
        limits = [each for row in self.rounds if row["part"] == "faults" for each in row["limits"]]
        if limits:
            goals.append(goal("Redis fails: limits above their bound", 0, sum(each["admitted"] > each["bound"] for each in limits)))
        if rows:
            goals.append(goal("least admitted of a limit, two of ten daemons asked", ADMITTED, min(row["admitted"] for row in rows if row["hosts"] == 2), at_least=True))
        return goals


def measure_all(options):
    parts = options.parts.split(",")
    if not set(parts) <= set(PARTS):
        raise DemoError(f"--parts: {options.parts}: there are {', '.join(PARTS)}")
    place = Workplace(options.build)
    try:
        print(f"{options.rounds} rounds of {options.seconds} s; load average {os.getloadavg()[0]:.1f}", flush=True)
        books = Books(place, options)
        for part in parts:
            getattr(books, part)()
    finally:
        place.close()
    for part in parts:
        getattr(books, f"show_{part}")()
    goals = books.goals()
    print()
    show_goals(goals)
    write(options, rounds=books.rounds, goals=goals)


if __name__ == "__main__":
    chosen = arguments()
    sys.exit(ended(lambda: measure_all(chosen)))
