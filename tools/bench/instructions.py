#!/usr/bin/env python3
"""Instructions that a decision costs, counted by valgrind, against the file that keeps them: exact, so there is no noise to allow for.

Exits 1 where a case needs over 5 % more than the file says. After a change that is meant: --update. The counts are of Debian 12's
compiler and libraries; elsewhere they differ.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

FILE = pathlib.Path(__file__).resolve().parent / "instructions.json"
FEW, MANY = 6_400, 32_000  # decisions; of whole pipelines
ALLOWED = 1.05


def instructions(path, case, n):
    done = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", path, case, str(n)], capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not found:
        sys.exit(f"{case}: {done.stderr.strip()}")
    return int(found.group(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--update", action="store_true", help="write what is counted to the file")
    options = parser.parse_args()
    path = f"{options.build}/tally_path"
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    now, worse = {}, []
    for case in subprocess.run([path], capture_output=True, text=True, check=True).stdout.split():
        now[case] = round((instructions(path, case, MANY) - instructions(path, case, FEW)) / (MANY - FEW), 1)
        before = kept.get(case)
        ratio = now[case] / before if before else None
        print(f"{case:<26}{now[case]:>8.1f} instructions a decision" + (f"   x {ratio:.3f} of {before}" if ratio else "   (new)"), flush=True)
        if ratio and ratio > ALLOWED:
            worse.append(case)
    if options.update:
        FILE.write_text(json.dumps(now, indent=1) + "\n")
        print(f"written to {FILE.name}")
    elif worse or not kept:
        print("over 5 % more: " + ", ".join(worse) if worse else f"there is no {FILE.name}: --update", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
