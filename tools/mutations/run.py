#!/usr/bin/env python3
"""Is every rule needed? Each is left out of a copy of the source in turn; the checkers of the simulator must notice.

Prints a table: the mutation, and what caught it: a checker, after so many random clusters, or a directed test where it names one.
Exits 1 where nothing did.
"""
import argparse
import pathlib
import re
import shutil
import subprocess
import sys

from mutations import MUTATIONS

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build-mutations", help="where the copy is built")
    parser.add_argument("--seed", type=int, default=1, help="of the first cluster")
    parser.add_argument("--clusters", type=int, default=2000, help="how many are tried before a mutation counts as not caught")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="mutations whose name contains this")
    options = parser.parse_args()

    tree = options.work / "tree"
    copy_tree(tree)
    missed, tried = [], 0
    if not options.only:
        caught = clusters_until_caught(options) or clusters_until_caught(options, True) or failed_test(options, {m.test for m in MUTATIONS if m.test})
        if caught:
            sys.exit(f"the source as it is breaks a bound already: {caught}")
    print("| mutation | caught by | after clusters |\n|---|---|---|", flush=True)
    for mutation in MUTATIONS:
        if options.only not in mutation.name:
            continue
        tried += 1
        before = {tree / file: (tree / file).read_text() for file, _, _ in mutation.edits()}
        for file, old, new in mutation.edits():
            text = (tree / file).read_text()
            if text.count(old) != 1:
                sys.exit(f"{file}: the text of the mutation '{mutation.name}' is there {text.count(old)} times, not once: "
                         "adapt tools/mutations/mutations.py")
            (tree / file).write_text(text.replace(old, new))
        try:
            caught = failed_test(options, {mutation.test}) if mutation.test else clusters_until_caught(options, mutation.live)
        finally:
            for path, text in before.items():
                path.write_text(text)
        if caught is None:
            missed.append(mutation.name)
        checker, after = caught or ("**nothing**", f"more than {options.clusters}")
        print(f"| {mutation.name} | {checker} | {after} |", flush=True)
    print(f"\n{tried - len(missed)} of {tried} caught.", flush=True)
    if missed:
        sys.exit(f"not caught: {', '.join(missed)}")


def copy_tree(tree):
    """Only what is newer is copied, so that a second run builds little."""
    for name in ("src", "include", "tools", "tests", "conf", "CMakeLists.txt", "CMakePresets.json"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, dirs_exist_ok=True, copy_function=copy_newer)
        elif source.exists():
            tree.mkdir(parents=True, exist_ok=True)
            copy_newer(source, tree / name)


def copy_newer(source, target):
    source, target = pathlib.Path(source), pathlib.Path(target)
    if not target.exists() or source.read_bytes() != target.read_bytes():
        shutil.copyfile(source, target)


def build_of(options, targets):
    build = options.work / "build"
    if not (build / "build.ninja").exists():
        run(["cmake", "-S", options.work / "tree", "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DTALLY_WERROR=OFF"])
    run(["cmake", "--build", build, "-j", str(options.jobs), "--target", *targets])
    return build


def failed_test(options, tests):
    """(what failed, where), or None."""
    build = build_of(options, sorted({program for program, _ in tests}))
    for program, case in sorted(tests):
        done = subprocess.run([build / program, f"--test-case={case.replace(',', chr(92) + ',')}"], capture_output=True, text=True)
        if "test cases: 0" in " ".join(done.stdout.split()):
            sys.exit(f"{program} has no case named '{case}'")
        if done.returncode != 0:
            return f"\"{case}\"", program
    return None


def clusters_until_caught(options, live=False):
    """(checker, clusters), or None."""
    build = build_of(options, ["tally-sim"])
    found = subprocess.run([build / "tally-sim", "--seed", str(options.seed), "--clusters", str(options.clusters // 3 if live else options.clusters),
                            "--quiet", *(["--liveness"] if live else [])],
                           capture_output=True, text=True)
    if found.returncode == 0:
        return None
    seed = re.search(r"^seed (\d+)", found.stdout, re.MULTILINE)
    violation = re.search(r"VIOLATION \S+ at \S+: (.*)", found.stdout)
    after = int(seed.group(1)) - options.seed + 1 if seed else 0
    if not violation:  # a CHECK of the node or the fleet itself ended the run
        return (found.stderr.strip().splitlines() or ["the run ended by itself"])[-1][:100], after
    return checker_of(violation.group(1)), after


def checker_of(sentence):
    for word, checker in (("admitted more in an interval", "bucket"), ("sliding window", "sliding"), ("bound", "window"),
                          ("fell from", "monotone numbers"), ("a mark of", "marks"), ("refunded", "refunds"),
                          ("lease number", "lease numbers"), ("admits nothing though", "liveness"), ("not ready though", "readiness"),
                          ("that waited were denied", "starvation"), ("more after", "holdings")):
        if word in sentence:
            return checker
    return sentence


def run(command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(str(c) for c in command)}:\n{done.stdout[-3000:]}{done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
