#!/usr/bin/env python3
"""Puts the clients from npm below the build folder: install.py FOLDER. Quick when they are there already."""
import json
import pathlib
import shutil
import subprocess
import sys

INSTALL_S = 300


def installed(folder, wanted):
    for name, version in wanted.items():
        package = folder / "node_modules" / name / "package.json"
        if not package.exists() or json.loads(package.read_text())["version"] != version:
            return False
    return True


def main(folder):
    source = pathlib.Path(__file__).resolve().parent / "package.json"
    wanted = json.loads(source.read_text())["dependencies"]
    folder.mkdir(parents=True, exist_ok=True)
    if installed(folder, wanted):
        print("all there: " + ", ".join(f"{name} {version}" for name, version in wanted.items()))
        return 0
    npm = shutil.which("npm")
    if npm is None:
        print("npm is not installed (Debian: apt-get install npm)")
        return 1
    shutil.copyfile(source, folder / "package.json")
    # Nothing of these packages needs a script at installation.
    subprocess.run([npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"], cwd=folder,
                   check=True, timeout=INSTALL_S, stdin=subprocess.DEVNULL)
    if not installed(folder, wanted):
        print("npm installed other versions than package.json asks for")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
