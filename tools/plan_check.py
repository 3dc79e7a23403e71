#!/usr/bin/env python3
"""Holds the planner against real daemons: the same requests, drawn from a seed, given to `tally plan` and to tallyd processes.

Usage: tools/plan_check.py [--seed N] [--build DIR], after tools/demo.sh has built what it needs; three quarters of a minute. Prints the table of
docs/accuracy.md, and exits 1 where the two are further apart than it says there.
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tools" / "demo"))
from fleet import DemoError, Fleet, Load, Workplace  # noqa: E402
from world import rule  # noqa: E402

NODES, LIMIT, WINDOW, WINDOWS = 10, 1000, 10, 3
IP_UDP_BYTES = 28  # a datagram's headers, which the plan counts and the daemon's metric does not
GUARD_S = 0.05  # nothing arrives so near to a window's boundary that two clocks could disagree
# sync interval, each way through a relay, offered in a window, max_overcount
SETTINGS = [(100, 0, 920, "5%"), (100, 20, 920, "5%"), (500, 20, 920, "5%"), (20, 20, 920, "5%"), (500, 20, 1300, "5%"),
            (500, 20, 2000, "unbounded")]
APART_PERCENT = 2.0  # of what was offered within the limit
BYTES_APART = 1.15


def arrivals(draw, offered):
    """(time, node), in every window so many at random times; the k-th busiest node gets a share of 1/k."""
    weights = [1 / (k + 1) for k in range(NODES)]
    return sorted((window * WINDOW + GUARD_S + draw.random() * (WINDOW - 2 * GUARD_S), draw.choices(range(NODES), weights)[0])
                  for window in range(WINDOWS) for _ in range(offered))


def planned(tally, folder, setting, requests):
    sync_ms, relay_ms, _, overcount = setting
    trace = folder / "trace.csv"
    trace.write_text("time,key,cost,node\n" + "".join(f"{at:.6f},k,1,{node}\n" for at, node in requests))
    command = [tally, "plan", f"limit={LIMIT} window={WINDOW}s max_overcount={overcount} wait=0 algorithm=fixed_window", "--nodes", str(NODES), "--trace", trace,
               "--sync", f"{sync_ms}ms", "--rtt", f"{2 * relay_ms}ms" if relay_ms else "200us", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoError(done.stderr)
    figures = json.loads(done.stdout)[0]
    return figures["admitted"], figures["overcount_worst"] / LIMIT, figures["bytes_per_s"]


def measured(place, load, draws):
    """All settings at once, each a fleet of its own: their requests are few."""
    fleets = [Fleet(place, NODES, [rule("steady", LIMIT, WINDOW, overcount, "fixed_window", wait="0ms")], sync_ms=sync_ms, delay_ms=relay_ms)
              for sync_ms, relay_ms, _, overcount in SETTINGS]
    for fleet in fleets:
        for node in fleet.nodes:
            load.open(node.name, node.socket)
    begin = (time.time() // WINDOW + 1) * WINDOW
    begin += WINDOW if begin - time.time() < 3 else 0
    start = begin - 0.5
    for i, (fleet, requests) in enumerate(zip(fleets, draws)):
        for at, node in requests:
            load.shot(at + begin - start, f"s{i}w{int(at // WINDOW)}/{node}", fleet.nodes[node].name, "take steady k")

    def sent():
        return [(fleet.sum("tallyd_sync_bytes_total", direction="out")
                 + IP_UDP_BYTES * fleet.sum("tallyd_sync_datagrams_total", direction="out")) / NODES for fleet in fleets]

    time.sleep(max(0, start - time.time()))
    load.begin(60)
    time.sleep(max(0, begin - time.time()))
    before, since = sent(), time.monotonic()
    time.sleep(max(0, begin + WINDOW * WINDOWS - time.time()))
    after, seconds = sent(), time.monotonic() - since
    outcome = load.finish()
    if outcome.errors():
        raise DemoError(outcome.errors()[0])
    print(f"[the latest request left {outcome.late_ms:.1f} ms late]", file=sys.stderr)
    for fleet in fleets:
        fleet.stop()
    found = []
    for i in range(len(SETTINGS)):
        windows = [outcome.admitted(f"s{i}w{w}") for w in range(WINDOWS)]
        found.append((sum(windows), max(0, max(windows) - LIMIT) / LIMIT, (after[i] - before[i]) / seconds))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    draws = [arrivals(draw, offered) for _, _, offered, _ in SETTINGS]
    place = Workplace(str(options.build))
    try:
        plans = [planned(options.build / "tally", place.path, setting, requests) for setting, requests in zip(SETTINGS, draws)]
        real = measured(place, Load(place), draws)
    except (DemoError, OSError) as problem:
        sys.exit(f"could not go on: {problem}")
    finally:
        place.close(keep=False)
    print("| sync | round trip | offered, % of L | e | undercount, %: planned | measured | worst over, %: planned | measured | B/s a node: planned | measured |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    apart = []
    for setting, plan, fleet in zip(SETTINGS, plans, real):
        sync_ms, relay_ms, offered, overcount = setting
        possible = min(offered, LIMIT) * WINDOWS
        under = [100 * max(0, possible - admitted) / possible for admitted, _, _ in (plan, fleet)]
        over = [100 * worst for _, worst, _ in (plan, fleet)]
        sent = [rate for _, _, rate in (plan, fleet)]
        name = f"{sync_ms} ms | {f'{2 * relay_ms} ms' if relay_ms else 'loopback'} | {100 * offered // LIMIT} | {overcount}"
        print(f"| {name} | {under[0]:.1f} | {under[1]:.1f} | {over[0]:.1f} | {over[1]:.1f} | {sent[0]:.0f} | {sent[1]:.0f} |")
        if abs(under[0] - under[1]) > APART_PERCENT or abs(over[0] - over[1]) > APART_PERCENT or max(sent) > BYTES_APART * min(sent):
            apart.append(name)
    if apart:
        sys.exit(f"further apart than {APART_PERCENT} % or {BYTES_APART} times the bytes: {'; '.join(apart)}")


if __name__ == "__main__":
    main()
