#!/usr/bin/env python3
"""Fills one server after the other with the same keys over its Unix socket and reads how much memory it has then (RSS).

Of tallyd also: how long it takes from its start until the socket answers, which is when its table is set aside, and how many keys it
forgot that still counted. Exits 0 once all was measured, whatever was reached; 2 where it could not be. Ends every process that it started.
"""
import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
from figures import ended, goal, show_goals, write  # noqa: E402
from servers import DemoError, Servers  # noqa: E402
from fleet import Resp, Workplace  # noqa: E402

BYTES_A_KEY, START_S = 75, 2.0  # of tallyd's table, at most
FEW = 1_024                     # keys of the daemon that shows what the process has beside its table
GOAL_AT = 10_000_000            # for this many keys


def kib(pid, field):
    return int(re.search(rf"^{field}:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M).group(1))


def evicted_live(way):
    connection = Resp(way.path)
    try:
        fields = connection("TALLY.STATS")
        return dict(zip(fields[::2], fields[1::2]))["keys_evicted_live"]
    finally:
        connection.close()


def tallyd(servers, options, keys=None):
    began = time.monotonic()
    way = servers.tallyd(table={"keys": keys or options.keys})
    return way, time.monotonic() - began


def beside_the_table(options):
    """KiB: programs, libraries, buffers."""
    place = Workplace(options.build)
    try:
        return kib(tallyd(Servers(place), options, FEW)[0].pid, "Rss")
    finally:
        place.close()


def of_redis(make):
    return lambda servers, options: (make(servers), None)


# No expiry comes while this runs.
WAYS = {
    "tallyd": tallyd,
    "Redis INCR and EXPIRE": of_redis(lambda servers: servers.redis_way("Redis INCR and EXPIRE", "incr_expire", "86400")),
    "Redis Lua GCRA": of_redis(lambda servers: servers.redis_script("Redis Lua GCRA", "gcra.lua", 6, "15", "1", "86400", "1")),
    "memcached incr": of_redis(lambda servers: servers.memcached()),
}


def measure(name, options):
    """Each way has a place, and so a server, of its own."""
    place = Workplace(options.build)
    try:
        servers = Servers(place)
        way, start = WAYS[name](servers, options)
        empty = kib(way.pid, "Rss")
        request = ["throttle", "15", "1", "86400"] if name == "tallyd" else way.request  # a token a day: all keys count to the end
        words = [place.program("tally_generator"), way.path, way.pid, 4, 64, 0.1, options.keys, 1, 0, *request]
        done = subprocess.run([*servers.generator_pin, *map(str, words)], capture_output=True, text=True, timeout=600, check=False)
        if done.returncode != 0:
            raise DemoError(f"{name}: {done.stderr.strip()}")
        full = kib(way.pid, "Rss")
        row = {"way": name, "empty_mib": empty / 1024, "full_mib": full / 1024, "bytes_a_key": full * 1024 / options.keys, "start_s": start}
        if name == "tallyd":
            row |= {"table_bytes_a_key": (full - beside_the_table(options)) * 1024 / options.keys, "evicted_live": evicted_live(way), "huge_mib": kib(way.pid, "AnonHugePages") / 1024}
        return row
    finally:
        place.close()


def starts(options):
    """Seconds, of so many starts."""
    taken = []
    for _ in range(options.starts):
        place = Workplace(options.build)
        try:
            taken.append(tallyd(Servers(place), options)[1])
        finally:
            place.close()
    return taken


def cluster(options):
    """What tally_cluster_memory says."""
    done = subprocess.run([f"{options.build}/tally_cluster_memory", str(options.cluster_keys)], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise DemoError(done.stderr.strip())
    return json.loads(done.stdout)


def arguments():
    parser = argparse.ArgumentParser(prog="tools/bench/memory.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--keys", type=int, default=GOAL_AT)
    parser.add_argument("--ways", default=",".join(WAYS), help=f"which of {', '.join(WAYS)}")
    parser.add_argument("--starts", type=int, default=5, help="of tallyd, timed")
    parser.add_argument("--cluster-keys", type=int, default=200_000, help="for what a fleet adds; 0: leave it out")
    parser.add_argument("--json", help="a file for the figures")
    return parser.parse_args()


def measure_all(options):
    print(f"{options.keys} keys\n{'server':<22}{'empty, MiB':>12}{'full, MiB':>12}{'bytes a key':>14}", flush=True)
    rows, goals = [], []
    for name in options.ways.split(","):
        if name not in WAYS:
            raise DemoError(f"there is no {name}")
        row = measure(name, options)
        rows.append(row)
        more = f"   {row['table_bytes_a_key']:.1f} of it for the table, {row['huge_mib']:.0f} MiB in huge pages; forgotten too early: {row['evicted_live']}" if name == "tallyd" else ""
        print(f"{name:<22}{row['empty_mib']:>12.1f}{row['full_mib']:>12.1f}{row['bytes_a_key']:>14.1f}{more}", flush=True)
        if name == "tallyd":
            goals.append(goal("tallyd's table, bytes a key", BYTES_A_KEY, row["table_bytes_a_key"]))
            goals.append(goal("tallyd, keys forgotten that still counted", 0, row["evicted_live"]))
    adds = cluster(options) if options.cluster_keys else {}
    if adds:
        print(f"\nin a fleet, beside the slot, {adds['keys']} keys, bytes allocated for each: {adds['account']:.0f} for an account (who asks), "
              f"{adds['book']:.0f} for books (the owner), {adds['mark']:.0f} for a mark (each of its group)", flush=True)
    taken = starts(options)
    if taken:
        print(f"\ntallyd answers {statistics.median(taken):.2f} s after its start ({min(taken):.2f} to {max(taken):.2f}, {len(taken)} starts)")
        goals.append(goal("tallyd, seconds until it answers, the slowest start", START_S, max(taken)))
    print()
    show_goals(goals)
    write(options, rows=rows, cluster=adds, starts_s=taken, goals=goals)


if __name__ == "__main__":
    chosen = arguments()
    sys.exit(ended(lambda: measure_all(chosen)))
