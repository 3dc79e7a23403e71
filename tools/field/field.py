#!/usr/bin/env python3
"""Measures on real tallyd processes what each failure costs, and checks the bound each time. See --help."""
import argparse
import importlib
import json
import os
import pathlib
import platform
import random
import signal
import sys
import time

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "demo")]
import rows  # noqa: E402
from fleet import DemoError, Workplace  # noqa: E402
from ground import Ground  # noqa: E402

# Each has CASES: {name: (function, what it is)}; the function takes a Ground and yields rows.
MODULES = (
    "failover",
    "strict",
    "hot",
    "majority",
    "rolling",
    "isolation",
    "weather",
    "interval",
    "regions",
)


def all_cases():
    return {name: case for module in MODULES for name, case in importlib.import_module(module).CASES.items()}


def arguments(cases):
    parser = argparse.ArgumentParser(
        prog="tools/field.sh", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="What each failure costs, on real processes; exits 1 when a promise is broken, 2 when it could not run.",
        epilog="cases:\n" + "\n".join(f"  {name:<14} {what}" for name, (_, what) in cases.items()))
    parser.add_argument("cases", nargs="*", metavar="CASE", help="which (default: all)")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="how often the owner is killed; other cases by their share of it (default 20)")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--seed", type=int, default=None, help="decides victims and moments (default: drawn, and printed)")
    parser.add_argument("--keep", action="store_true", help="leave the daemons' configurations and logs behind, and say where")
    parser.add_argument("--build", default="build", help="where tallyd, tally and tally_load were built")
    parsed = parser.parse_args()
    wrong = [name for name in parsed.cases if name not in cases]
    if wrong:
        parser.error(f"no case {', '.join(wrong)}; there are {', '.join(cases)}")
    if parsed.runs < 1:
        parser.error("--runs must be 1 or more")
    return parsed


def say(line):
    print(line, flush=True)


def measure(cases, chosen, ground):
    """(rows, names of the cases that could not go on): what others have measured is not lost by one."""
    found, failed = [], []
    for name in chosen:
        begun = time.monotonic()
        try:
            found += cases[name][0](ground)
        except (DemoError, OSError) as problem:
            print(f"\n{name} could not go on: {problem}", file=sys.stderr)
            failed.append(name)
        say(f"[{name}: {time.monotonic() - begun:.0f} s]")
    return found, failed


def write_json(path, options, seed, found, seconds):
    text = {"seed": seed, "runs": options.runs, "seconds": round(seconds, 1), "cores": os.cpu_count(), "system": platform.platform(),
            "rows": [row.as_json() for row in found]}
    pathlib.Path(path).write_text(json.dumps(text, indent=1) + "\n")


def main():
    cases = all_cases()
    options = arguments(cases)
    for which in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(which, lambda number, frame: sys.exit(128 + number))
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    say(f"seed {seed} (--seed {seed} draws the same victims and moments)")
    begun = time.monotonic()
    place = Workplace(options.build)
    try:
        found, failed = measure(cases, options.cases or list(cases), Ground(place, options.runs, seed, say))
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    finally:
        place.close(keep=options.keep)
    seconds = time.monotonic() - begun
    say("\n" + "\n".join(rows.table(found)))
    broken = sum(row.kept is False for row in found)
    say(f"\n{seconds:.0f} s; {sum(row.kept is True for row in found)} promises kept, {broken} broken"
        + (f"; could not go on: {', '.join(failed)}" if failed else ""))
    if options.json:
        write_json(options.json, options, seed, found, seconds)
    return 1 if broken else 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
