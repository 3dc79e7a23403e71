#!/usr/bin/env python3
"""Runs cases by themselves: alone.py [--build DIR] [--seed N] CASE..."""
import argparse
import pathlib
import random
import signal
import sys

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tools" / "field"), str(ROOT / "tools" / "demo")]
import interval  # noqa: E402
import isolation  # noqa: E402
import regions  # noqa: E402
import rows  # noqa: E402
import weather  # noqa: E402
from fleet import DemoError, Workplace  # noqa: E402

CASES = {name: case for module in (isolation, weather, interval, regions) for name, case in module.CASES.items()}


class Ground:
    def __init__(self, place, seed):
        self.place, self.seed, self.random, self.keys = place, seed, random.Random(seed), 0
        self.say = lambda text: print(text, flush=True)

    def fresh_key(self):
        self.keys += 1
        return f"{self.random.getrandbits(48):012x}.{self.keys}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default=str(ROOT / "build"))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("cases", nargs="*", default=list(CASES), help=", ".join(CASES))
    options = parser.parse_args()
    for which in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(which, lambda number, frame: sys.exit(128 + number))
    print(f"seed {options.seed}")
    place = Workplace(options.build)
    try:
        ground, found = Ground(place, options.seed), []
        for case in options.cases:
            found += CASES[case][0](ground)
        print("\n".join(rows.table(found)))
        return any(row.kept is False for row in found)
    except (DemoError, OSError) as problem:
        print(f"could not go on: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        place.close()


if __name__ == "__main__":
    sys.exit(main())
