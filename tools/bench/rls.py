#!/usr/bin/env python3
"""The gRPC door for Envoy beside RESP: decisions a second of one connection, their time, and the daemon's CPU time for each; see --help."""
import argparse
import json
import os
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
from figures import ended, turns, write  # noqa: E402
from servers import DemoError, Servers  # noqa: E402
from fleet import Workplace  # noqa: E402

KEYS = 1000
RULES = [{"name": "bench", "limit": 2147483648, "window": "1h", "match": {"domain": "bench", "descriptors": [{"key": "bench"}]}}]
# name, whether by gRPC, calls under way
CASES = {"RESP, one by one": (False, 1), "gRPC, one by one": (True, 1), "RESP, pipelines of 64": (False, 64), "gRPC, 64 under way": (True, 64)}


def arguments():
    parser = argparse.ArgumentParser(prog="tools/bench/rls.sh", description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--json", help="where the figures go, as JSON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    return parser.parse_args()


def measure(place, servers, way, rls, name, seconds, number):
    by_grpc, calls = CASES[name]
    if by_grpc:
        words = [place.program("tally_rls_load"), rls, way.pid, calls, seconds, KEYS]
    else:
        words = [place.program("tally_generator"), way.path, way.pid, 1, calls, seconds, KEYS, number + 1, 0, "take", "bench"]
    done = subprocess.run([*servers.generator_pin, *map(str, words)], capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode != 0:
        raise DemoError(done.stderr.strip())
    figures = json.loads(done.stdout)
    return {"per_second": figures["decisions"] / figures["seconds"], "cpu_us": figures["server_cpu_us"] / figures["decisions"],
            "median_us": figures["batch_p50_us"], "p99_us": figures["batch_p99_us"]}


def measure_all(options):
    place = Workplace(options.build)
    try:
        rls = place.path / "rls.sock"
        servers = Servers(place)
        way = servers.tallyd(rules=RULES, listen={"resp": [f"unix:{place.path}/tallyd.sock"], "http": [f"unix:{place.path}/tallyd.http"], "rls": [f"unix:{rls}"]})
        print(f"{options.rounds} rounds of {options.seconds} s; load average {os.getloadavg()[0]:.1f}", flush=True)
        rounds = {name: [] for name in CASES}
        for number, name in turns(options.rounds, list(CASES)):
            rounds[name].append(measure(place, servers, way, rls, name, options.seconds, number))
    finally:
        place.close()
    print(f"\n{'':<24}decisions a second   CPU us each   median us   p99 us")
    for name, rows in rounds.items():
        middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        print(f"{name:<24}{middle['per_second']:18,.0f}{middle['cpu_us']:14.2f}{middle['median_us']:12.1f}{middle['p99_us']:9.1f}")
    write(options, rounds=rounds, goals=[])


if __name__ == "__main__":
    chosen = arguments()
    sys.exit(ended(lambda: measure_all(chosen)))
