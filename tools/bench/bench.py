#!/usr/bin/env python3
"""Interleaved rounds of the same load on tallyd and on Redis; see --help. Ends every process that it started."""
import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))
from fleet import DemoError, Node, Resp, Workplace, last_lines, wait_for  # noqa: E402

THROTTLE = ["15", "30", "60"]


def arguments():
    parser = argparse.ArgumentParser(prog="tools/bench/run.sh", description="Decisions a second over a Unix socket: CL.THROTTLE "
                                     "key 15 30 60 1 on tallyd (one worker), INCR key and a GCRA script by EVALSHA on Redis.")
    parser.add_argument("--build", default="build")
    parser.add_argument("--out", default="out/bench-socket.json", help="where the figures go, as JSON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--pipelines", default="1,16,64")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-pin", action="store_true", help="do not pin the server to one core and the generator to another")
    parser.add_argument("--redis-only", action="store_true", help="leave tallyd out")
    return parser.parse_args()


class Bench:
    def __init__(self, place, options):
        self.place, self.options = place, options
        cores = sorted(os.sched_getaffinity(0))
        pin = len(cores) > 1 and not options.no_pin and shutil.which("taskset")
        self.server_pin = ["taskset", "-c", str(cores[0])] if pin else []
        self.generator_pin = ["taskset", "-c", str(cores[1])] if pin else []
        redis_socket, redis_pid = self.start_redis()
        sha = self.load_script(redis_socket)
        self.ways = {}
        if not options.redis_only:
            self.ways["tallyd CL.THROTTLE"] = (*self.start_tallyd(), ["throttle", *THROTTLE])
        self.ways["Redis INCR"] = (redis_socket, redis_pid, ["incr"])
        self.ways["Redis Lua GCRA"] = (redis_socket, redis_pid, ["evalsha", sha, *THROTTLE])

    def start_tallyd(self):
        node = Node(self.place, "bench")
        state = self.place.path / "state"
        state.mkdir()
        node.config.write_text(json.dumps({
            "node": {"name": "bench", "state_dir": str(state)},
            "listen": {"resp": [f"unix:{node.socket}"], "http": [f"unix:{node.http}"]}, "workers": 1}))
        node.child = self.place.start([*self.server_pin, self.place.program("tallyd"), "-c", str(node.config)], "tallyd")
        wait_for(node.ready, "tallyd was not ready")
        return str(node.socket), node.child.pid

    def start_redis(self):
        path = self.place.path / "redis.sock"
        child = self.place.start([*self.server_pin, "redis-server", "--port", "0", "--unixsocket", str(path), "--save", "",
                                  "--appendonly", "no", "--daemonize", "no", "--dir", str(self.place.path)], "redis")
        wait_for(path.exists, f"redis-server did not start: {last_lines(child.log)}")
        return str(path), child.pid

    @staticmethod
    def load_script(path):
        connection = Resp(path)
        try:
            return connection("SCRIPT", "LOAD", (HERE / "gcra.lua").read_text())
        finally:
            connection.close()

    def measure(self, way, pipeline, seed):
        path, pid, request = self.ways[way]
        o = self.options
        # A measurement that hangs is ended by the generator itself: no reply for 5 s is its failure.
        done = subprocess.run([*self.generator_pin, self.place.program("tally_generator"), path, str(pid), str(o.connections),
                               str(pipeline), str(o.seconds), str(o.keys), str(seed), *request],
                              capture_output=True, text=True, timeout=o.seconds + 60, check=False)
        if done.returncode != 0:
            raise DemoError(f"{way}: {done.stderr.strip()}")
        figures = json.loads(done.stdout)
        return {"way": way, "pipeline": pipeline, **figures, "per_second": figures["decisions"] / figures["seconds"],
                "server_cpu_us": figures["server_cpu_us"] / figures["decisions"]}

    def rounds(self):
        results = []
        names = list(self.ways)
        for number in range(self.options.rounds):
            for pipeline in map(int, self.options.pipelines.split(",")):
                for i in range(len(names)):
                    way = names[(i + number) % len(names)]  # each goes first in turn
                    figures = self.measure(way, pipeline, self.options.seed + number)
                    results.append({"round": number, **figures})
                    print(f"round {number + 1}  pipeline {pipeline:>2}  {way:<18} {figures['per_second'] / 1000:9.1f} k/s",
                          flush=True)
        return results



def summary(results, ways):
    """Medians, and ratios taken round by round, so that a slow moment of the machine hits both sides of a ratio."""
    rows = []
    for pipeline in sorted({r["pipeline"] for r in results}):
        of = {way: [r for r in results if r["way"] == way and r["pipeline"] == pipeline] for way in ways}
        first = of[ways[0]]
        for way in ways:
            rate = [r["per_second"] for r in of[way]]
            ratios = [a["per_second"] / b["per_second"] for a, b in zip(first, of[way])]
            rows.append({"pipeline": pipeline, "way": way, "median_per_second": statistics.median(rate),
                         "min_per_second": min(rate), "max_per_second": max(rate),
                         "server_cpu_us_per_decision": statistics.median(r["server_cpu_us"] for r in of[way]),
                         "batch_p50_us": statistics.median(r["batch_p50_us"] for r in of[way]),
                         "batch_p99_us": statistics.median(r["batch_p99_us"] for r in of[way]),
                         "first_to_this": statistics.median(ratios), "first_to_this_min": min(ratios),
                         "first_to_this_max": max(ratios)})
    return rows


def show(rows, first):
    print(f"\npipeline  server               k decisions/s (spread)        CPU us each   batch p50, p99 us   {first} to it")
    for row in rows:
        own = row["way"] == first
        ratio = "" if own else (f"x {row['first_to_this']:.2f}  ({row['first_to_this_min']:.2f} to "
                                f"{row['first_to_this_max']:.2f})")
        rate = f"{row['median_per_second'] / 1000:8.1f} ({row['min_per_second'] / 1000:.0f} to {row['max_per_second'] / 1000:.0f})"
        print(f"{row['pipeline']:>8}  {row['way']:<19} {rate:<28} {row['server_cpu_us_per_decision']:>8.2f}   "
              f"{row['batch_p50_us']:>9.0f}, {row['batch_p99_us']:>6.0f}    {ratio}")


def main():
    options = arguments()
    for which in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(which, lambda number, frame: sys.exit(128 + number))
    place = Workplace(options.build)
    try:
        bench = Bench(place, options)
        print(f"{options.connections} connections, {options.keys} random keys, {options.rounds} rounds of {options.seconds} s; "
              f"server on {' '.join(bench.server_pin[2:]) or 'any'} core, generator on {' '.join(bench.generator_pin[2:]) or 'any'}; "
              f"load average {os.getloadavg()[0]:.1f}", flush=True)
        results = bench.rounds()
        ways = list(bench.ways)
        rows = summary(results, ways)
        show(rows, ways[0])
        out = pathlib.Path(options.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "options": vars(options),
                                   "load_average": os.getloadavg(), "cores": os.cpu_count(), "summary": rows,
                                   "rounds": results}, indent=1) + "\n")
        print(f"\nwritten to {out}")
        return 0
    except (DemoError, OSError, subprocess.TimeoutExpired) as problem:
        print(f"the benchmark could not go on: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        place.close()


if __name__ == "__main__":
    sys.exit(main())
