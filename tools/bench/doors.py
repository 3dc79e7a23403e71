#!/usr/bin/env python3
"""What a limit adds to a request, by door: through a proxy that asks, and asked by the application itself, in turns; see --help. Ends every process that it started."""
import argparse
import os
import random
import shutil
import socket
import sys

sys.dont_write_bytecode = True
from figures import ended, goal, show_goals, spread, turns, write  # noqa: E402
from servers import DemoError, Servers, last_lines, wait_for  # noqa: E402
from fleet import Resp, Workplace, as_map  # noqa: E402
from door_list import DOORS, GRPC, GRPC_CLIENT, RULES  # noqa: E402
from door_ways import WARM_UP  # noqa: E402

ADDED_US = {"nginx, tally by Lua": {"p50": 40, "p99": 100}, "HAProxy, tally by Lua": {"p50": 60, "p99": 200}}  # what is to be reached, at most
WIDTH = 28  # of a door's name


def arguments():
    parser = argparse.ArgumentParser(prog="tools/bench/doors.sh", description="How long a request takes longer for a limit: through nginx and HAProxy, with the one "
                                     "that they have built in and with tally, beside the same proxy without a limit; and where an application asks tally itself, by RESP, "
                                     "HTTP and gRPC. One kept connection, one request after the other, random keys.")
    parser.add_argument("--build", default="build")
    parser.add_argument("--json", help="where the figures go, as JSON")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=5000, help="of each measurement")
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-pin", action="store_true", help="do not pin the proxies and tallyd to one core and the client to another")
    return parser.parse_args()


class Bench:
    def __init__(self, place, options):
        self.place, self.options = place, options
        try:  # for us and all that we start: then a p99 is the doors', not that of whatever else runs here
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        except PermissionError:
            print("no right to a real-time priority (root has it): p99 is also of whatever else runs here", file=sys.stderr)
        self.servers = Servers(place, not options.no_pin)
        self.resp, self.http, self.rls = (f"{place.path}/tallyd.{end}" for end in ("sock", "http", "rls"))
        self.resp_tcp, self.http_tcp = self.port(), self.port()
        by_grpc = (place.build / GRPC_CLIENT).exists()
        if not by_grpc:
            print(f"{GRPC_CLIENT} was not built: no row for gRPC", file=sys.stderr)
        self.doors = DOORS + [GRPC] * by_grpc
        self.tallyd = self.servers.tallyd(rules=RULES, listen={"resp": [f"unix:{self.resp}", self.resp_tcp], "http": [f"unix:{self.http}", self.http_tcp],
                                                               "rls": [f"unix:{self.rls}"] * by_grpc})
        if self.servers.generator_pin:
            os.sched_setaffinity(0, {int(self.servers.generator_pin[2])})
        self.ways = {door.name: door.start(self, door.name) for door in self.doors}
        self.operator = Resp(self.resp)
        self.rounds = []

    def port(self):
        with socket.socket() as probe:
            probe.bind((self.place.address, 0))
            return f"{self.place.address}:{probe.getsockname()[1]}"

    def program(self, name):
        found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if found is None:
            raise DemoError(f"{name} is not installed: tools/bench/doors.sh does that")
        return found

    def serve(self, words, name, listen):
        child = self.place.start([*self.servers.server_pin, *map(str, words)], name)
        host, port = listen.split(":")

        def accepts():
            with socket.socket() as probe:
                return probe.connect_ex((host, int(port))) == 0
        wait_for(lambda: not child.alive() or accepts(), f"{name} did not start")
        if not child.alive():
            raise DemoError(f"{name} ended at once: {last_lines(child.log)}")

    def admitted(self):
        """How often tallyd has let somebody in."""
        return as_map(self.operator("TALLY.STATS"))["admitted"]

    def measure(self, number, door):
        dice, before = random.Random(self.options.seed + number), self.admitted()
        try:
            came = self.ways[door.name].measure([dice.randrange(self.options.keys) for _ in range(WARM_UP + self.options.requests)])
        except DemoError as problem:
            raise DemoError(f"{door.name}: {problem}") from problem
        if (self.admitted() != before) != door.asks:
            raise DemoError(f"{door.name}: tallyd {'was not' if door.asks else 'was'} asked")
        self.rounds.append({"round": number, "door": door.name, **came})
        print(f"round {number + 1}: {door.name:<{WIDTH}} p50 {came['p50_us']:7.1f} us, p99 {came['p99_us']:7.1f} us", file=sys.stderr, flush=True)

    def of(self, name):
        return sorted((row for row in self.rounds if row["door"] == name), key=lambda row: row["round"])

    def added(self, door, figure):
        """What it takes longer than without a limit, round by round."""
        mine = [row[figure] for row in self.of(door.name)]
        return mine if door.beside is None else [one - bare[figure] for one, bare in zip(mine, self.of(door.beside))]

    def summary(self):
        return [{"door": door.name, "beside": door.beside, **{figure: spread([row[figure] for row in self.of(door.name)]) for figure in ("p50_us", "p99_us")},
                 **{f"added_{figure}": spread(self.added(door, figure)) for figure in ("p50_us", "p99_us")}} for door in self.doors]


def show(rows, goals):
    def text(figure):
        return f"{figure['median']:8.1f} ({figure['least']:.1f} to {figure['most']:.1f})"
    print(f"\nadded latency by door\n{'door':<{WIDTH}}{'p50 us (spread)':<30}{'p99 us (spread)':<30}{'added p50 us (spread)':<30}added p99 us (spread)")
    for row in rows:
        bare = row["beside"] == row["door"]
        added = ["" if bare else text(row[f"added_{figure}"]) for figure in ("p50_us", "p99_us")]
        print(f"{row['door']:<{WIDTH}}{text(row['p50_us']):<30}{text(row['p99_us']):<30}{added[0]:<30}{added[1]}".rstrip())
    print()
    show_goals(goals)


def measure_all(options):
    place = Workplace(options.build)
    try:
        bench = Bench(place, options)
        print(f"{options.rounds} rounds of {options.requests} requests, {options.keys} random keys; servers on {' '.join(bench.servers.server_pin[2:]) or 'any'} core, "
              f"client on {' '.join(bench.servers.generator_pin[2:]) or 'any'}; load average {os.getloadavg()[0]:.1f}", flush=True)
        for number, door in turns(options.rounds, bench.doors):
            bench.measure(number, door)
        rows = bench.summary()
        goals = [goal(f"{row['door']}: {figure} added to {row['beside']}, us", most, row[f"added_{figure}_us"]["median"])
                 for row in rows for figure, most in ADDED_US.get(row["door"], {}).items()]
        show(rows, goals)
        write(options, summary=rows, goals=goals, rounds=bench.rounds)
    finally:
        place.close()


if __name__ == "__main__":
    chosen = arguments()
    sys.exit(ended(lambda: measure_all(chosen)))
