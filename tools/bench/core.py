#!/usr/bin/env python3
"""Runs core_bench in rounds, its benchmarks in random order within each, and holds the medians against what is to be reached.

Exits 0 once all was measured, whatever was reached; 2 where it could not be.
"""
import argparse
import json
import statistics
import subprocess
import sys

sys.dont_write_bytecode = True
from figures import ended, goal, show_goals, write  # noqa: E402

# (benchmark, nanoseconds at most)
AT_MOST = {"random_keys/fixed": 60, "random_keys/fixed_batched": 35, "hot_key/fixed_found": 5, "hot_key/bucket_found": 5,
           "hot_key/fixed_denied": 3, "hot_key/bucket_denied": 3}
# (benchmark, beside which, so many times as fast at least)
AT_LEAST = [("random_keys/fixed", "plain_map", 10), ("random_keys/fixed_batched", "plain_map", 10)]
TITLES = {
    "memory_line_dependent": "a random line of 64 bytes, each place read from the one before",
    "memory_line_among<0>": "a random line, places known ahead", "memory_line_among<200>": "as many instructions beside it that wait for nothing",
    "exchange_and_answer": "one exchange and an answer, nothing else",
    "hashing": "the hash of a key", "plain_map": "std::mutex, std::unordered_map, fixed window",
}


def measure(options):
    """{benchmark: nanoseconds a decision, one figure a round}"""
    done = subprocess.run([f"{options.build}/core_bench", "--benchmark_format=json", f"--benchmark_repetitions={options.rounds}",
                           "--benchmark_enable_random_interleaving=true", f"--benchmark_min_time={options.seconds}",
                           f"--benchmark_filter={options.filter}"], stdout=subprocess.PIPE, text=True, check=True)
    figures = {}
    for run in json.loads(done.stdout)["benchmarks"]:
        if run["run_type"] == "iteration":
            figures.setdefault(run["run_name"], []).append(1e9 / run["items_per_second"])
    return figures


def beside(figures, name, other):
    """How many times as fast as the other, round by round."""
    return [theirs / ours for ours, theirs in zip(figures[name], figures[other])]


def goals(figures):
    held = [goal(f"{name}, ns", most, statistics.median(figures[name])) for name, most in AT_MOST.items() if name in figures]
    held += [goal(f"{name}, times as fast as {other}", least, statistics.median(beside(figures, name, other)), at_least=True)
             for name, other, least in AT_LEAST if name in figures and other in figures]
    return held


def show(figures):
    print(f"{'benchmark':<48}{'ns a decision':>14}   spread")
    for name, rounds in figures.items():
        title = f"   {TITLES[name]}" if name in TITLES else ""
        print(f"{name:<48}{statistics.median(rounds):>14.2f}   {min(rounds):.2f} to {max(rounds):.2f}{title}")


def arguments():
    parser = argparse.ArgumentParser(prog="tools/bench/core.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement")
    parser.add_argument("--filter", default=".", help="which benchmarks, a regular expression")
    parser.add_argument("--json", help="a file for the figures of all rounds")
    return parser.parse_args()


def measure_all(options):
    figures = measure(options)
    held = goals(figures)
    show(figures)
    print()
    show_goals(held)
    write(options, goals=held, nanoseconds=figures)


if __name__ == "__main__":
    chosen = arguments()
    sys.exit(ended(lambda: measure_all(chosen)))
