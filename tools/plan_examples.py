#!/usr/bin/env python3
"""Runs the commands of docs/planning.md again and puts what they print, and the plots that they write, in their place.

Usage: tools/plan_examples.py, after a build. A command is a line "$ ..." of a block; what follows up to the next one or
the end of the block is its output.
"""
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "planning.md"


def output_of(command):
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command}\nended with {done.returncode}: {done.stderr}")
    return done.stdout.splitlines()


def renewed(lines):
    in_block = skipping = False
    for line in lines:
        if line.startswith("```"):
            in_block, skipping = not in_block, False
        if in_block and line.startswith("$ "):
            yield line
            yield from output_of(line[2:])
            skipping = True
        elif not skipping:
            yield line


PAGE.write_text("\n".join(renewed(PAGE.read_text().splitlines())) + "\n")
