#!/usr/bin/env python3
"""Lets fleets of real tallyd processes share limits over loopback, and checks what they promise. See --help."""
import argparse
import pathlib
import random
import signal
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import cases  # noqa: E402
import repeat  # noqa: E402
from fleet import DemoError, Workplace  # noqa: E402
from world import World  # noqa: E402

IN_ORDER = {"1": cases.doors, "2": cases.registers, "6": cases.login_and_api, "4": cases.uneven, "5": cases.disaster,
            "7": cases.owner_killed}
TOGETHER = ("3", "8")
CLOSER = {"small": repeat.small_limits, "quiet": repeat.quiet_keys}


def arguments():
    parser = argparse.ArgumentParser(
        prog="tools/demo.sh", description="Eight cases on real processes; exits 1 when a promise is broken, 2 when it could not run.",
        epilog="Cases: 1 five doors, 2 five registers, 3 toll booths, 4 uneven, 5 disaster, 6 login and API, 7 owner killed, "
               "8 sync intervals. Also: small (limits of 10, 60 and 100 on ten nodes), quiet (keys under their floor).")
    parser.add_argument("--cases", default=None, help="for example 1,5,6 (default: 1 to 8)")
    parser.add_argument("--repeat", type=int, default=0, metavar="N", help="repeat N times on running fleets (cases 1, 2, 4, 5, 6; default 1, 5 and 6)")
    parser.add_argument("--seed", type=int, default=None, help="decides keys and timings (default: drawn, and printed)")
    parser.add_argument("--books", action="store_true", help="fleets keep their books in a Redis; case 7 is then about Redis's end")
    parser.add_argument("--keep", action="store_true", help="leave the daemons' configurations and logs behind, and say where")
    parser.add_argument("--build", default="build", help="where tallyd, tally_load and tally_relay were built")
    parsed = parser.parse_args()
    known = [*map(str, range(1, 9)), *CLOSER]
    chosen = (parsed.cases or ("1,5,6" if parsed.repeat else "1,2,3,4,5,6,7,8")).split(",")
    wrong = [c for c in chosen if c not in known]
    if wrong:
        parser.error(f"no case {', '.join(wrong)}; there are {', '.join(known)}")
    if parsed.repeat < 0:
        parser.error("--repeat must be 0 or more")
    parsed.cases = chosen
    return parsed


def run(world, options):
    report = world.report
    if options.repeat:
        repeat.repeat(world, options.cases, options.repeat)
        return
    report.line("Every limit is shared by a whole fleet. \"each door alone\": the same traffic where no daemon knows another.")
    for case, do in {**IN_ORDER, **CLOSER}.items():
        if case in options.cases:
            do(world)
        if case == "2" and "1" in options.cases:
            cases.round_trips(world)
        stop_what_is_done(world, options.cases, case)
    together = [case in options.cases for case in TOGETHER]
    if any(together):
        cases.toll_and_sync(world, *together)


def stop_what_is_done(world, chosen, case):
    """A fleet that no later case needs is ended, so that it takes no time from the others."""
    if case == "6" and "3" not in chosen:
        world.stop_fleets(keep=[(10, False, ""), (20, False, ""), (20, True, "")])
    if case == "4":
        world.stop_fleets(keep=[(5, False, ""), (20, False, ""), (20, True, "")])
    if case == "7":
        world.stop_fleets(keep=[(5, False, ""), (20, True, "")])


def main():
    options = arguments()
    for which in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(which, lambda number, frame: sys.exit(128 + number))
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed} (--seed {seed} draws the same keys and timings)", flush=True)
    started = time.monotonic()
    place = Workplace(options.build)
    try:
        world = World(place, seed, options.books)
        run(world, options)
        world.report.summary(time.monotonic() - started)
        return 1 if world.report.broken() else 0
    except (DemoError, OSError) as problem:
        print(f"\nThe demonstration could not go on: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    finally:
        place.close(keep=options.keep)


if __name__ == "__main__":
    sys.exit(main())
