#!/usr/bin/env python3
"""Interleaved rounds of the same load on tallyd and on what one would take instead; see --help. Ends every process that it started."""
import argparse
import json
import os
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
import redis_benchmark  # noqa: E402
from figures import ended, goal, show_goals, spread, turns, write  # noqa: E402
from servers import THROTTLE, DemoError, Servers, resident_mb  # noqa: E402
from fleet import Workplace  # noqa: E402

FIRST, SPIN, BARE, INCR, GCRA = "tallyd", "tallyd that spins", "bare loop", "Redis INCR", "Redis Lua GCRA"
PARTS = ("throughput", "latency", "one", "redis_benchmark", "keys")
# What is to be reached, by pipeline: decisions a second beside Redis, at least; CPU a decision beside the bare loop, at most.
BESIDE_INCR, BESIDE_GCRA = {1: 1.1, 16: 2.3, 64: 3.0}, {1: 3.4, 16: 22, 64: 40}
CPU_BESIDE_BARE = {1: 1.15, 16: 1.3, 64: 1.4}
P99_BESIDE_INCR, ONE_BESIDE_INCR = 0.8, 0.95
SPIN_US, ONE_BESIDE_SPIN = 50, 0.5


def arguments():
    parser = argparse.ArgumentParser(prog="tools/bench/bench.py", description="Decisions over a Unix socket: CL.THROTTLE on tallyd (one worker), "
                                     "the least loop that does that, limiters in Redis, memcached.")
    parser.add_argument("--build", default="build")
    parser.add_argument("--json", help="where the figures go")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"which of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--pipelines", default="1,16,64")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--counts", default="100000,1000000,10000000", help="of keys, for the part keys")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-pin", action="store_true", help="do not pin the servers to one core and the generator to another")
    return parser.parse_args()


class Bench:
    def __init__(self, place, options):
        self.place, self.options = place, options
        self.servers = servers = Servers(place, not options.no_pin)
        self.ways = {way.name: way for way in [
            servers.tallyd(FIRST), servers.tallyd(SPIN, spin=f"{SPIN_US}us"), servers.bare_loop(options.keys), servers.redis_way(INCR, "incr"),
            servers.redis_way("Redis INCR, EXPIRE", "incr_expire", "60"), servers.redis_script(GCRA, "gcra.lua", 6, *THROTTLE, "1"),
            servers.redis_script("Redis Lua sliding", "sliding.lua", 3, "16", "60000"), servers.memcached()]}
        self.rounds, self.memory = [], []

    def generate(self, way, pipeline, seed, *flags, connections=None, keys=None, rate=0):
        o = self.options
        words = [self.place.program("tally_generator"), *flags, way.path, way.pid, connections or o.connections, pipeline, o.seconds,
                 keys or o.keys, seed, round(rate), *way.request]
        # A measurement that hangs is ended by the generator itself: no reply for 5 s is its failure.
        done = subprocess.run([*self.servers.generator_pin, *map(str, words)], capture_output=True, text=True, timeout=o.seconds + 120, check=False)
        if done.returncode != 0:
            raise DemoError(f"{way.name}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def note(self, part, number, way, pipeline, figures):
        row = {"part": part, "round": number, "way": way.name, "pipeline": pipeline, **figures, "per_second": figures["decisions"] / figures["seconds"],
               "server_us": figures["server_cpu_us"] / figures["decisions"], "generator_busy": figures["generator_cpu_us"] / figures["seconds"] / 1e6}
        self.rounds.append(row)
        print(f"{part}, round {number + 1}: pipeline {pipeline:>2}  {way.name:<19} {row['per_second'] / 1000:9.1f} k/s", file=sys.stderr, flush=True)

    def measure(self, part, number, way, pipeline, **load):
        self.note(part, number, self.ways[way], pipeline, self.generate(self.ways[way], pipeline, self.options.seed + number, **load))

    def each(self, names, do):
        for number, name in turns(self.options.rounds, names):
            do(number, name)

    def throughput(self):
        for pipeline in map(int, self.options.pipelines.split(",")):
            ways = [way for way in self.ways if way != SPIN or pipeline == 1]
            self.each(ways, lambda number, way, pipeline=pipeline: self.measure("throughput", number, way, pipeline))

    def latency(self):
        """All are offered half of what Redis can do unpipelined."""
        if not self.of("throughput", INCR, 1):
            self.each([INCR], lambda number, way: self.measure("throughput", number, way, 1))
        rate = statistics.median(row["per_second"] for row in self.of("throughput", INCR, 1)) / 2
        self.each([FIRST, SPIN, BARE, INCR], lambda number, way: self.measure("latency", number, way, 1, rate=rate))

    def one(self):
        self.each([FIRST, SPIN, BARE, INCR], lambda number, way: self.measure("one", number, way, 1, connections=1))

    def redis_benchmark(self):
        """The same commands by another generator, which is then what is slow."""
        requests = {FIRST: ["CL.THROTTLE", "key:__rand_int__", *THROTTLE, "1"], INCR: ["INCR", "key:__rand_int__"]}
        rates = {}

        def one(number, name, pipeline):
            way, o = self.ways[name], self.options
            figures = redis_benchmark.run(self.servers.generator_pin, way.path, way.pid, requests[name], o.connections, pipeline, o.keys, o.seconds,
                                          rates.get((name, pipeline)))
            rates[name, pipeline] = figures["per_second"]
            self.note("redis_benchmark", number, way, pipeline, figures)
        for pipeline in map(int, self.options.pipelines.split(",")):
            self.each(list(requests), lambda number, name, pipeline=pipeline: one(number, name, pipeline))

    def keys(self):
        """Servers with a table for so many keys, all of them in it."""
        for count in map(int, self.options.counts.split(",")):
            with self.servers.of_their_own(f"{count}-") as servers:
                ways = {way.name: way for way in [servers.tallyd(FIRST, table={"keys": max(count, 1024)}), servers.redis_way(INCR, "incr")]}
                for way in ways.values():
                    empty = resident_mb(way.pid)
                    self.generate(way, 64, 0, keys=count)
                    self.memory.append({"keys": count, "way": way.name, "empty_mb": empty, "full_mb": resident_mb(way.pid)})
                for shape, flags in (("uniform", []), ("zipf", ["--zipf"])):
                    for pipeline in (1, 64):
                        self.each(list(ways), lambda number, way, p=pipeline, part=f"{count} {shape}", flags=tuple(flags): self.note(
                            part, number, ways[way], p, self.generate(ways[way], p, self.options.seed + number, "--touched", *flags, keys=count)))

    def of(self, part, way, pipeline):
        return [row for row in self.rounds if (row["part"], row["way"], row["pipeline"]) == (part, way, pipeline)]

    def ratios(self, part, pipeline, figure, other):
        """Of the first to another, round by round, so that a slow moment of the machine hits both sides."""
        return [a[figure] / b[figure] for a, b in zip(self.of(part, FIRST, pipeline), self.of(part, other, pipeline))]

    def summary(self):
        rows = []
        for part, pipeline, way in dict.fromkeys((row["part"], row["pipeline"], row["way"]) for row in self.rounds):
            of = self.of(part, way, pipeline)
            median = {figure: statistics.median(row[figure] for row in of)
                      for figure in ("per_second", "server_us", "generator_busy", "batch_p50_us", "batch_p99_us", "batch_p999_us") if figure in of[0]}
            rates = [row["per_second"] for row in of]
            to = {f"first_to_this_{figure}": spread(self.ratios(part, pipeline, figure, way)) for figure in ("per_second", "server_us", "batch_p99_us")}
            rows.append({"part": part, "pipeline": pipeline, "way": way, **median, "least_per_second": min(rates), "most_per_second": max(rates), **to})
        return rows

    def goals(self, rows):
        """[(what, goal, what came, reached)]"""
        goals = []

        def hold(part, pipeline, way, figure, limit, at_least, what):
            for row in rows:
                if (row["part"], row["pipeline"], row["way"]) == (part, pipeline, way) and row[f"first_to_this_{figure}"]:
                    goals.append(goal(what, limit, row[f"first_to_this_{figure}"]["median"], at_least))
        for pipeline in (1, 16, 64):
            hold("throughput", pipeline, INCR, "per_second", BESIDE_INCR[pipeline], True, f"pipeline {pipeline}: decisions a second, to {INCR}")
            hold("throughput", pipeline, GCRA, "per_second", BESIDE_GCRA[pipeline], True, f"pipeline {pipeline}: decisions a second, to {GCRA}")
            hold("throughput", pipeline, BARE, "server_us", CPU_BESIDE_BARE[pipeline], False, f"pipeline {pipeline}: CPU a decision, to the {BARE}")
        hold("latency", 1, INCR, "batch_p99_us", P99_BESIDE_INCR, False, f"p99 at half of Redis's peak, to {INCR}")
        hold("one", 1, INCR, "per_second", ONE_BESIDE_INCR, True, f"one connection: decisions a second, to {INCR}")
        hold("one", 1, SPIN, "per_second", ONE_BESIDE_SPIN, False, f"one connection: decisions a second, to {SPIN}")
        for count in map(int, self.options.counts.split(",")):
            for shape in ("uniform", "zipf"):
                hold(f"{count} {shape}", 64, INCR, "per_second", BESIDE_INCR[64], True, f"{count:,} keys, {shape}, pipeline 64: decisions a second, to {INCR}")
        return goals


def show(rows, memory, goals):
    print(f"\npart            pipeline  server               k decisions/s (spread)      CPU us each  batch p50, p99, p99.9 us  generator  {FIRST} to it: rate, CPU")
    for row in rows:
        rate = f"{row['per_second'] / 1000:8.1f} ({row['least_per_second'] / 1000:.0f} to {row['most_per_second'] / 1000:.0f})"
        times = ", ".join(f"{row[f'batch_{p}_us']:.0f}" for p in ("p50", "p99", "p999") if f"batch_{p}_us" in row)
        rates, cpu = row["first_to_this_per_second"], row["first_to_this_server_us"]
        to = "" if row["way"] == FIRST or not rates else (f"x {rates['median']:.2f} ({rates['least']:.2f} to {rates['most']:.2f}), "
                                                          f"x {cpu['median']:.2f} ({cpu['least']:.2f} to {cpu['most']:.2f})")
        print(f"{row['part']:<16}{row['pipeline']:>8}  {row['way']:<20} {rate:<28}{row['server_us']:>10.2f}   {times:>22}   "
              f"{100 * row['generator_busy']:>6.0f} %  {to}")
    for row in memory:
        print(f"{row['keys']:>10,} keys in {row['way']:<12} resident {row['full_mb']:6.0f} MB, {row['empty_mb']:.0f} before they came")
    print()
    show_goals(goals)


def measure_all(options):
    place = Workplace(options.build)
    try:
        bench = Bench(place, options)
        print(f"{options.connections} connections, {options.keys} random keys, {options.rounds} rounds of {options.seconds} s; "
              f"servers on {' '.join(bench.servers.server_pin[2:]) or 'any'} core, generator on {' '.join(bench.servers.generator_pin[2:]) or 'any'}; "
              f"load average {os.getloadavg()[0]:.1f}", flush=True)
        for part in options.parts.split(","):
            if part not in PARTS:
                raise DemoError(f"there is no part {part}")
            getattr(bench, part)()
        rows = bench.summary()
        goals = bench.goals(rows)
        show(rows, bench.memory, goals)
        write(options, summary=rows, memory=bench.memory, goals=goals, rounds=bench.rounds)
    finally:
        place.close()


if __name__ == "__main__":
    chosen = arguments()
    sys.exit(ended(lambda: measure_all(chosen)))
