#!/usr/bin/env python3
"""What a daemon does beside deciding, and what that costs its decisions: rules, metrics, a fleet, reloads; see --help. Ends every process that it started."""
import argparse
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
from figures import ended, goal, show_goals, spread, turns, write  # noqa: E402
from servers import DemoError  # noqa: E402
from fleet import Fleet, Resp, Workplace, http_get  # noqa: E402

RULES, CONNECTIONS = 1000, 50
PARTS = ("everything", "stalls")
CPU_MORE, SCRAPE_MS, RELOAD_MS, STALLS_PER_EVENT = 1.15, 10, 10, 0.01  # what is to be reached, at most
WARM_UP = 4  # times that each key is asked for: then its owner knows it, and one request's worth is there ahead
RATES = ((1, 8_000), (64, 64_000))  # pipeline and decisions a second: with three nodes on one core more would not be reported in time
SCRAPE_EVERY_S, RELOAD_EVERY_S = 0.1, 0.2  # while looking for stalls; a Prometheus asks every 15 s


def arguments():
    parser = argparse.ArgumentParser(prog="tools/bench/beside.py", description="The CPU that a worker needs for a decision with 1,000 rules, scrapes and a "
                                     "fleet to report to, and without; how long scrapes and reloads take and whether they hold up decisions.")
    parser.add_argument("--build", default="build")
    parser.add_argument("--json", help="where the figures go")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"which of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--peers", type=int, default=50, help="nodes of the fleet in which stalls are looked for")
    return parser.parse_args()


def threads(pid):
    """[(id, name)]"""
    return [(int(task.name), (task / "comm").read_text().strip()) for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]


class Beside:
    """The workers of the daemon that is measured have a core to themselves; all else shares the other, where the generator comes first."""

    def __init__(self, place, options):
        self.place, self.options = place, options
        self.rounds = []
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise DemoError("this needs two cores: one for the worker, one for all else")
        self.worker_core, self.other_core = cores[:2]
        os.sched_setaffinity(0, {self.other_core})  # and with us whatever we start
        first = ["chrt", "-f", "10"]
        self.first = first if subprocess.run([*first, "true"], capture_output=True, check=False).returncode == 0 else []
        if not self.first:
            print("no right to a real-time priority (root has it): what the generator itself had to wait counts as the daemon's", file=sys.stderr)

    def pin(self, node):
        for thread, name in threads(node.child.pid):
            os.sched_setaffinity(thread, {self.worker_core if name.startswith("worker-") else self.other_core})
            if name.startswith("worker-") and self.first:  # else what some other process does on its core would look like a stall
                os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(10))

    def generator(self, node, keys, seed, pipeline, rate, rules, seconds=None, touched=True):
        words = [self.place.program("tally_generator"), *(["--touched"] if touched else []), "--sleep", node.socket, node.child.pid, CONNECTIONS, pipeline,
                 seconds or self.options.seconds, keys, seed, rate, "take", *rules]
        return subprocess.Popen([*self.first, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def figures(self, generator, meanwhile=None):
        """`meanwhile` is called again and again until the generator has ended."""
        try:
            while meanwhile and generator.poll() is None:
                meanwhile()
            out, err = generator.communicate(timeout=self.options.seconds + 120)
        finally:
            if generator.poll() is None:
                generator.kill()
                generator.wait()
        if generator.returncode != 0:
            raise DemoError(f"the generator: {err.strip()}")
        return json.loads(out)

    def note(self, part, number, way, figures):
        self.rounds.append({"part": part, "round": number, "way": way, **figures})
        print(f"{part}, round {number + 1}: {way}", file=sys.stderr, flush=True)

    def rows(self, part, way):
        return [row for row in self.rounds if row["part"] == part and row["way"] == way]

    def of(self, part, way, figure):
        return [row[figure] for row in self.rows(part, way)]

    # --- everything at once ---

    def everything(self):
        """The worker's CPU a decision: one rule and nothing else, then 1,000 rules, a scrape every second, and a fleet that hears of all keys."""
        o = self.options
        used = [rule_name(i) for i in range(0, RULES, RULES // CONNECTIONS)]  # one for each connection
        fleets = Fleet(self.place, 1, rules_that_report(1), alone=True, keys=2 * o.keys), Fleet(self.place, 3, rules_that_report(RULES), keys=2 * o.keys)
        plain, full = (fleet.nodes[0] for fleet in fleets)
        ways = {"plain": (plain, o.keys, used[:1], None), "everything": (full, o.keys // len(used), used, Paced(1.0, lambda: scrape(full)))}
        for node, keys, rules, _ in ways.values():
            self.pin(node)
            for _ in range(WARM_UP):
                self.figures(self.generator(node, keys, 0, 64, 6_400, rules, seconds=0.2, touched=False))
        for pipeline, rate in RATES:
            for number, name in turns(o.rounds, list(ways)):
                node, keys, rules, meanwhile = ways[name]
                before = cluster_counts(node)
                figures = self.figures(self.generator(node, keys, number + 1, pipeline, rate, rules), meanwhile)
                after = cluster_counts(node)
                self.note(f"everything, pipeline {pipeline}", number, name, figures | {
                    "worker_us": figures["workers_cpu_us"] / figures["decisions"],
                    "rest_us": (figures["server_cpu_us"] - figures["workers_cpu_us"]) / figures["decisions"],
                    "reports_per_second": (after["reports"] - before["reports"]) / figures["seconds"],
                    "waited": (after["waited"] - before["waited"]) / figures["decisions"], "leased": after["leased"]})
        for fleet in fleets:
            fleet.stop()

    # --- what came out ---

    def ratios(self, part, way, other, figure):
        """Round by round, so that a slow moment of the machine hits both."""
        return spread([a / b for a, b in zip(self.of(part, way, figure), self.of(part, other, figure))])

    def goals(self):
        goals = []
        for part in dict.fromkeys(row["part"] for row in self.rounds if row["part"].startswith("everything")):
            goals.append(goal(f"{part}: CPU of the worker a decision, to that without", CPU_MORE, self.ratios(part, "everything", "plain", "worker_us")["median"]))
        if self.rows("stalls", "quiet"):
            for way, most_ms in (("scrapes", SCRAPE_MS), ("reloads", RELOAD_MS)):
                goals.append(goal(f"{way}: ms each, median", most_ms, statistics.median(self.took(way))))
                during, usual, events = self.stalled(way)
                goals.append(goal(f"{way}: stalls of more than 1 ms during each, beyond the usual", STALLS_PER_EVENT, (during - usual) / events))
        return goals

    def stalled(self, way):
        """(stalls during events, as many as there would be in that time anyway, events)"""
        during = outside = 0
        inside_s = 0.0
        for row in self.rows("stalls", way):
            overlaps = [any(start < until and since < end for start, end in row["events"]) for since, until in row["stalls"]]
            during += sum(overlaps)
            outside += len(overlaps) - sum(overlaps)
            inside_s += sum(end - start for start, end in row["events"])
        outside_s = sum(self.of("stalls", way, "seconds")) - inside_s
        return during, outside * inside_s / outside_s, sum(map(len, self.of("stalls", way, "events")))

    def took(self, way):
        return sorted(itertools.chain.from_iterable(self.of("stalls", way, "took_ms")))

    def show(self):
        for part in dict.fromkeys(row["part"] for row in self.rounds if row["part"].startswith("everything")):
            print(f"\n{part}         worker us a decision (spread)   all other threads   reports/s   keys leased   waited")
            for way in ("plain", "everything"):
                us = self.of(part, way, "worker_us")
                others = [statistics.median(self.of(part, way, figure)) for figure in ("rest_us", "reports_per_second", "leased", "waited")]
                print(f"{way:<24} {statistics.median(us):12.3f} ({min(us):.3f} to {max(us):.3f}) {others[0]:17.2f} {others[1]:12.0f} {others[2]:12.0f} {100 * others[3]:8.2f} %")
            ratio = self.ratios(part, "everything", "plain", "worker_us")
            print(f"to plain: x {ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})")
        if self.rows("stalls", "quiet"):
            print(f"\nstalls, {RULES} rules, {self.options.peers} nodes      decisions   p50, p99, p99.9, longest us   unseen   stalls   how many   during them, usual   took ms: median, p99, longest   CPU ms of its thread")
            for way in ("quiet", "scrapes", "reloads"):
                times = ", ".join(f"{statistics.median(self.of('stalls', way, f'batch_{p}_us')):.0f}" for p in ("p50", "p99", "p999")) + \
                    f", {max(self.of('stalls', way, 'batch_max_us')):.0f}"
                took = self.took(way)
                during, usual, events = self.stalled(way)
                each = "" if not took else (f"{during:10}, {usual:.2f} {statistics.median(took):10.2f}, {took[int(0.99 * (len(took) - 1))]:.2f}, {took[-1]:.2f}"
                                            f"{statistics.median(self.of('stalls', way, 'cpu_ms')):20.2f}")
                print(f"{way:<34} {sum(self.of('stalls', way, 'decisions')):10} {times:>30} {sum(self.of('stalls', way, 'batches_unseen')):8} {sum(map(len, self.of('stalls', way, 'stalls'))):8} {events:10} {each}")
        print()

    # --- what holds up decisions ---

    def stalls(self):
        """Decisions at a modest rate, undisturbed, during scrapes and during reloads."""
        fleet = Fleet(self.place, self.options.peers, [{"name": rule_name(i), "limit": 1_000_000_000, "window": "1m"} for i in range(RULES)], keys=16_384)
        node = fleet.nodes[0]
        self.pin(node)
        used = [rule_name(i) for i in range(0, RULES, RULES // CONNECTIONS)]
        connection = Resp(node.socket)
        main = node.child.pid
        admin = next(thread for thread, name in threads(main) if name == "admin")
        ways = {"quiet": (None, main), "scrapes": (Paced(SCRAPE_EVERY_S, lambda: scrape(node)), admin),
                "reloads": (Paced(RELOAD_EVERY_S, lambda: connection("TALLY.RELOAD")), main)}

        try:
            for number, name in turns(self.options.rounds, list(ways)):
                paced, thread = ways[name]
                alone = paced.alone() if paced else []  # [(start, end)]
                before = thread_ms(main, thread)
                figures = self.figures(self.generator(node, 100, number + 1, 1, 10_000, used), paced)
                events = paced.spans if paced else []
                self.note("stalls", number, name, figures | {"events": events, "took_ms": [1000 * (end - start) for start, end in alone],
                                                             "cpu_ms": (thread_ms(main, thread) - before) / max(1, len(events))})
        finally:
            connection.close()
            fleet.stop()


def thread_ms(process, thread):
    return int(pathlib.Path(f"/proc/{process}/task/{thread}/schedstat").read_text().split()[0]) / 1e6


def rule_name(number):
    return f"rule-{number:04}"


def rules_that_report(count):
    """Strict, so that every key has to be asked for and reported, with limits that are never reached."""
    return [{"name": rule_name(i), "limit": 1_000_000_000, "window": "1d", "max_overcount": 0, "on_isolation": "closed"} for i in range(count)]


def cluster_counts(node):
    counts = {"reports": 0, "waited": 0, "leased": 0}
    for name, labels, value in node.metrics():
        if name == "tallyd_sync_entries_total" and (labels["kind"], labels["direction"]) == ("report", "out"):
            counts["reports"] += value
        elif name == "tallyd_wait_duration_seconds_count":
            counts["waited"] += value
        elif name == "tallyd_keys_leased":
            counts["leased"] += value
    return counts


def scrape(node):
    status, _ = http_get(node.http, "/metrics")
    if status != 200:
        raise DemoError(f"{node.name} shows no metrics")


class Paced:
    """Calls something every so many seconds, however often it is called itself, and keeps when each began and ended."""

    def __init__(self, every_s, do):
        self.every_s, self.do, self.next, self.spans = every_s, do, 0.0, []

    def alone(self, times=20):
        """When each began and ended where nobody asks meanwhile; what is kept begins anew."""
        self.spans = []
        for _ in range(times):
            time.sleep(self.every_s / 4)
            self.next = 0.0
            self()
        spans, self.spans = self.spans, []
        return spans

    def __call__(self):
        now = time.monotonic()
        if now < self.next:
            time.sleep(min(0.02, self.next - now))
            return
        self.next = max(now, self.next + self.every_s)
        self.do()
        self.spans.append((now, time.monotonic()))


def measure_all(options):
    place = Workplace(options.build)
    try:
        beside = Beside(place, options)
        for part in options.parts.split(","):
            if part not in PARTS:
                raise DemoError(f"there is no part {part}")
            getattr(beside, part)()
        goals = beside.goals()
        beside.show()
        show_goals(goals)
        write(options, goals=goals, rounds=beside.rounds)
    finally:
        place.close()


if __name__ == "__main__":
    chosen = arguments()
    sys.exit(ended(lambda: measure_all(chosen)))
