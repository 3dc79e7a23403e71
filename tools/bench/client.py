#!/usr/bin/env python3
"""The client library: decisions a second in the process, on hot keys, on many, on denials, and where every key is new; see --help."""
import argparse
import json
import os
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
from figures import ended, goal, show_goals, write  # noqa: E402
from servers import DemoError, Servers  # noqa: E402
from fleet import Workplace  # noqa: E402

COVERED_M, SCALING = 20, 0.9
RULES = [{"name": "wide", "limit": 2147483648, "window": "1h"}, {"name": "full", "limit": 1, "window": "1h"}]
# name, rule, threads, keys of each
CASES = [("one thread, 1 key", "wide", 1, 1), ("two threads, 1 key each", "wide", 2, 1), ("one thread, 100 keys", "wide", 1, 100),
         ("one thread, 10,000 keys", "wide", 1, 10_000), ("denials, one thread", "full", 1, 1), ("keys that are new each time", "wide", 1, 4_000_000)]
ASKED = "every decision asked for"


def arguments():
    parser = argparse.ArgumentParser(prog="tools/bench/client.sh", description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--json", help="where the figures go, as JSON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    return parser.parse_args()


def measure(place, way, rule, threads, keys, seconds):
    words = [place.program("tally_client_bench"), way.path, rule, threads, keys, seconds]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode != 0 or json.loads(done.stdout)["away"] != 0:
        raise DemoError(f"the client could not ask: {done.stderr.strip()}")
    figures = json.loads(done.stdout)
    return {"per_second": figures["decisions"] / figures["seconds"], "asked": figures["asked"] / figures["decisions"]}


def measure_asked(place, way, seconds, number):
    """One connection, one by one: what there is without the library."""
    words = [place.program("tally_generator"), way.path, way.pid, 1, 1, seconds, 1, number + 1, 0, "take", "wide"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode != 0:
        raise DemoError(done.stderr.strip())
    figures = json.loads(done.stdout)
    return {"per_second": figures["decisions"] / figures["seconds"], "asked": 1.0}


def measure_all(options):
    place = Workplace(options.build)
    try:
        way = Servers(place, pin=False).tallyd(rules=RULES)
        print(f"{options.rounds} rounds of {options.seconds} s; load average {os.getloadavg()[0]:.1f}", flush=True)
        rounds = {name: [] for name in [*(case[0] for case in CASES), ASKED]}
        for number in range(options.rounds):
            for name, rule, threads, keys in CASES:
                rounds[name].append(measure(place, way, rule, threads, keys, options.seconds))
            rounds[ASKED].append(measure_asked(place, way, options.seconds, number))
    finally:
        place.close()
    print(f"\n{'':<30}million decisions a second (spread)    asked for")
    for name, rows in rounds.items():
        rates = [row["per_second"] / 1e6 for row in rows]
        print(f"{name:<30}{statistics.median(rates):10.3f} ({min(rates):.3f} to {max(rates):.3f})      "
              f"{100 * statistics.median(row['asked'] for row in rows):9.4f} %")
    one, two = rounds[CASES[0][0]], rounds[CASES[1][0]]
    goals = [goal("million decisions a second on one thread, covered", COVERED_M, statistics.median(row["per_second"] for row in one) / 1e6, at_least=True),
             goal("two threads with keys of their own, to twice one thread", SCALING,
                  statistics.median(both["per_second"] / (2 * single["per_second"]) for single, both in zip(one, two)), at_least=True)]
    print()
    show_goals(goals)
    write(options, rounds=rounds, goals=goals)


if __name__ == "__main__":
    chosen = arguments()
    sys.exit(ended(lambda: measure_all(chosen)))
