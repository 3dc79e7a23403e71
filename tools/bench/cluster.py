#!/usr/bin/env python3
"""Runs cluster_bench, each case several times, in turns; prints medians with their spread, and which goals are reached.

Exits 2 where a case could not run.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
from figures import ended, goal, show_goals, write  # noqa: E402

# At most: filling a table of more than a million keys takes a minute or two, and the figure is a mean of 64 ticks; so do two million accounts.
BIG_ROUNDS, HOT_ROUNDS = 1, 3

SMALL = [("pairs",), ("marks",), ("groups", "10"), ("groups", "100"), ("groups", "1000"), ("hot", "100000", "20", "1"), ("hot", "100000", "20", "2")]
TICKS = [(table, keys, active) for table in ("ledger", "accounts")
         for keys, active in ((100_000, 1_000), (1_000_000, 1_000), (10_000_000, 100), (10_000_000, 1_000), (10_000_000, 10_000))]

# (what, case, figure, goal, whether it is to be at least that)
GOALS = [
    ("million reports a second and core, made to applied", "pairs", "reports: million/s", 5, True),
    ("million grants a second and core, made to applied", "pairs", "grants: million/s", 5, True),
    ("million marks a second and core, made to applied", "marks", "marks: million/s", 5, True),
    ("million acceptances a second and core, made to applied", "marks", "accepted: million/s", 5, True),
    ("million pairs of report and grant a second and core", "pairs", "pairs million/s", 1.5, True),
    ("bytes a report, all headers counted", "pairs", "report: bytes", 26, False),
    ("bytes a grant", "pairs", "grant: bytes", 26, False),
    ("bytes a mark", "marks", "mark: bytes", 26, False),
    ("bytes an acceptance", "marks", "accepted: bytes", 26, False),
]
# A table that is ten times as large, with as many active keys, costs a tick so much more at most.
GROWTH_MAX = 1.5
TWO_THREADS_MIN = 1.6


def arguments():
    parser = argparse.ArgumentParser(prog="tools/bench/cluster.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keys-max", type=int, default=10_000_000, help="leave out larger tables")
    parser.add_argument("--cases", help="only those that begin with one of these words, such as pairs,ledger")
    parser.add_argument("--json", help="where all figures go")
    return parser.parse_args()


def run(build, case):
    done = subprocess.run([f"{build}/cluster_bench", *case], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(case)}: exit {done.returncode} {done.stderr.strip()}")
    return json.loads(done.stdout)


def summary(rounds):
    """{figure: [median, least, most]}"""
    return {name: [statistics.median(of), min(of), max(of)] for name in rounds[0] if name != "case"
            for of in [[figures[name] for figures in rounds]]}


def goals_of(results):
    goals = []
    for what, case, figure, limit, at_least in GOALS:
        if case in results and figure in results[case]:
            goals.append(goal(what, limit, results[case][figure][0], at_least))
    for table, figure in (("ledger", "owner's tick us"), ("ledger", "member's tick us"), ("accounts", "lessee's tick us")):
        sizes = sorted(keys for t, keys, active in TICKS if t == table and active == 1_000 and f"{t} {keys} {active}" in results)
        if len(sizes) > 1:
            least, most = (results[f"{table} {keys} 1000"][figure][0] for keys in (sizes[0], sizes[-1]))
            goals.append(goal(f"{figure.removesuffix(' us')} at {sizes[-1]:,} keys to that at {sizes[0]:,}, 1,000 active", GROWTH_MAX, most / least))
    one, two = (results.get(f"hot 100000 20 {threads}") for threads in (1, 2))
    if one and two:
        goals.append(goal("reports a second in two threads, to one", TWO_THREADS_MIN, two["reports million/s"][0] / one["reports million/s"][0], at_least=True))
    return goals


def measure_all(options):
    cases = SMALL + [(table, str(keys), str(active)) for table, keys, active in TICKS if keys <= options.keys_max]
    if options.cases:
        cases = [case for case in cases if case[0] in options.cases.split(",")]
    rounds = {}
    print(f"{options.rounds} rounds; {os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f}", flush=True)
    for number in range(options.rounds):
        for case in cases:
            most = HOT_ROUNDS if case[0] == "hot" else BIG_ROUNDS if len(case) == 3 and int(case[1]) > 1_000_000 else options.rounds
            if number >= most:
                continue
            rounds.setdefault(" ".join(case), []).append(run(options.build, case))
            print(f"round {number + 1}: {' '.join(case)}", file=sys.stderr, flush=True)
    results = {case: summary(of) for case, of in rounds.items()}
    for case, figures in results.items():
        print(f"\n{case}   ({len(rounds[case])} rounds)")
        for name, (median, least, most) in figures.items():
            print(f"  {name:<32}{median:>14,.4g}   ({least:,.4g} to {most:,.4g})")
    goals = goals_of(results)
    print()
    show_goals(goals)
    write(options, summary=results, goals=goals, rounds=rounds)


if __name__ == "__main__":
    chosen = arguments()
    sys.exit(ended(lambda: measure_all(chosen)))
