"""What the benchmarks of this folder have in common when they say what came out; as a program, all goals in the files named, as one list.

A file has "goals": [{"what", "goal", "came", "reached"}, ...] beside whatever else it has.
"""
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time


def ended(body):
    """Runs it, and returns what the program exits with: 0 when all was measured, reached or not; 2 where that could not be."""
    for which in (signal.SIGTERM, signal.SIGHUP):  # so that what was started is ended
        signal.signal(which, lambda number, frame: sys.exit(128 + number))
    try:
        body()
        return 0
    except (OSError, RuntimeError, subprocess.SubprocessError, json.JSONDecodeError) as problem:
        print(f"the benchmark could not go on: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def turns(rounds, names):
    """(round, name): all names in every round, and each goes first in turn."""
    for number in range(rounds):
        for i in range(len(names)):
            yield number, names[(i + number) % len(names)]


def spread(ratios):
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)} if ratios else None


def goal(what, limit, came, at_least=False):
    """`limit` is to be reached; at least, or else at most."""
    return {"what": what, "goal": f"{'at least' if at_least else 'at most'} {limit}", "came": came, "reached": came >= limit if at_least else came <= limit}


def show_goals(goals):
    for each in goals:
        came = each["came"] if isinstance(each["came"], str) else f"{each['came']:.3g}"
        print(f"{'reached' if each['reached'] else 'MISSED ':<8} {each['what']}: {came}, {each['goal']}")


def write(options, **more):
    """Everything as JSON to options.json, if that is set, for whoever compares runs."""
    if not options.json:
        return
    out = pathlib.Path(options.json)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "options": vars(options), "load_average": os.getloadavg(),
                               "cores": os.cpu_count(), **more}, indent=1) + "\n")
    print(f"\nwritten to {out}")


def main(paths):
    files = [(path, json.loads(pathlib.Path(path).read_text())) for path in paths]
    goals = [dict(each, what=f"{pathlib.Path(path).stem.removeprefix('bench-')}: {each['what']}") for path, figures in files for each in figures["goals"]]
    print(f"\n{sum(each['reached'] for each in goals)} of {len(goals)} goals reached:")
    show_goals(goals)


if __name__ == "__main__":
    main(sys.argv[1:])
