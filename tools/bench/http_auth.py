#!/usr/bin/env python3
"""HTTP over a Unix socket, on connections that are kept: GET /v1/auth on tallyd beside nginx's "return 204", in turns; see --help."""
import argparse
import json
import os
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
from figures import ended, goal, show_goals, spread, turns, write  # noqa: E402
from servers import DemoError, Servers  # noqa: E402
from fleet import Workplace  # noqa: E402

FIRST, NGINX, RESP = "tallyd HTTP", "nginx return 204", "tallyd RESP"
BESIDE_NGINX = 1.0  # requests a second of the server's processor time, at least
RULES = [{"name": "wide", "limit": 2147483648, "window": "1h"}]  # nobody is denied: replies have one length
TARGET = "/v1/auth?rule=wide&key=user:"
LINES, NGINX_LINES = "9", "5"  # of a reply, the empty one included


def arguments():
    parser = argparse.ArgumentParser(prog="tools/bench/http.sh", description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--json", help="where the figures go, as JSON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--pipelines", default="1,16")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--no-pin", action="store_true", help="do not pin the servers to one core and the generator to another")
    return parser.parse_args()


def measure(place, servers, way, pipeline, number, options):
    words = [place.program("tally_generator"), way.path, way.pid, options.connections, pipeline, options.seconds, options.keys, number + 1, 0, *way.request]
    done = subprocess.run([*servers.generator_pin, *map(str, words)], capture_output=True, text=True, timeout=options.seconds + 120, check=False)
    if done.returncode != 0:
        raise DemoError(f"{way.name}: {done.stderr.strip()}")
    figures = json.loads(done.stdout)
    return {"way": way.name, "pipeline": pipeline, "round": number, "per_second": figures["decisions"] / figures["seconds"],
            "server_us": figures["server_cpu_us"] / figures["decisions"], "generator_busy": figures["generator_cpu_us"] / figures["seconds"] / 1e6,
            "p50_us": figures["batch_p50_us"], "p99_us": figures["batch_p99_us"]}


def ratios(rounds, pipeline, name):
    """What the other takes of its processor for a request, to what the first does; round by round."""
    cost = {way: [row["server_us"] for row in rounds if (row["way"], row["pipeline"]) == (way, pipeline)] for way in (FIRST, name)}
    return spread([other / ours for ours, other in zip(cost[FIRST], cost[name])])


def measure_all(options):
    place = Workplace(options.build)
    rounds = []
    try:
        servers = Servers(place, not options.no_pin)
        ways = {way.name: way for way in [servers.tallyd(FIRST, ("http", LINES, TARGET), rules=RULES),
                                          servers.nginx(NGINX, "http", NGINX_LINES, TARGET), servers.tallyd(RESP, ("take", "wide"), rules=RULES)]}
        print(f"{options.connections} connections, {options.keys} random keys, {options.rounds} rounds of {options.seconds} s; load average {os.getloadavg()[0]:.1f}",
              flush=True)
        pipelines = [int(one) for one in options.pipelines.split(",")]
        for pipeline in pipelines:
            for number, name in turns(options.rounds, list(ways)):
                rounds.append(measure(place, servers, ways[name], pipeline, number, options))
    finally:
        place.close()
    print(f"\n{'pipeline':>8}  {'':<22}thousand a second (spread)   CPU us each   batch p50, p99 us   generator   a second of CPU, tallyd's to it")
    goals = []
    for pipeline in pipelines:
        for name in (FIRST, NGINX, RESP):
            rows = [row for row in rounds if (row["way"], row["pipeline"]) == (name, pipeline)]
            median = {figure: statistics.median(row[figure] for row in rows) for figure in ("per_second", "server_us", "p50_us", "p99_us", "generator_busy")}
            rates = [row["per_second"] / 1000 for row in rows]
            to = ratios(rounds, pipeline, name)
            shown = "" if name == FIRST else f"x {to['median']:.2f} ({to['least']:.2f} to {to['most']:.2f})"
            print(f"{pipeline:>8}  {name:<22}{median['per_second'] / 1000:8.1f} ({min(rates):.0f} to {max(rates):.0f}){median['server_us']:16.2f}   "
                  f"{median['p50_us']:8.0f}, {median['p99_us']:.0f}{100 * median['generator_busy']:13.0f} %   {shown}")
        goals.append(goal(f"pipeline {pipeline}: requests a second of CPU, to {NGINX}", BESIDE_NGINX, ratios(rounds, pipeline, NGINX)["median"], at_least=True))
    print()
    show_goals(goals)
    write(options, rounds=rounds, goals=goals)


if __name__ == "__main__":
    chosen = arguments()
    sys.exit(ended(lambda: measure_all(chosen)))
