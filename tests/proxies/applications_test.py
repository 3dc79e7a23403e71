#!/usr/bin/env python3
"""Applications that limit their requests by themselves, as tools/examples shows it: applications_test.py TALLYD TALLY MODULES [TEST...]

MODULES is the folder that has node_modules.
"""
import pathlib
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
from proxies import LONG_MS, ROOT, Contract, Doors, free_ports, program  # noqa: E402
from processes import PROGRAMS, main  # noqa: E402

EXAMPLES = ROOT / "tools" / "examples"


class Example(Contract, Doors):
    limit_headers = "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"
    key = "127.0.0.1"

    def door(self, daemon, closed=False, deadline_ms=LONG_MS):
        port, = free_ports(1)
        self.proxy([*self.words(), daemon.socket, "api", port, "closed" if closed else "open", deadline_ms], port, "application")
        return port


class Wsgi(Example):
    def words(self):
        for interpreter in (sys.executable, "/usr/bin/python3"):  # Debian's packages are the latter's, whatever python3 comes first
            if subprocess.run([interpreter, "-c", "import redis"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return [interpreter, "-B", EXAMPLES / "wsgi.py"]
        raise AssertionError("python3-redis is not installed (Debian: apt-get install python3-redis)")


class Express(Example):
    def words(self):
        modules = pathlib.Path(PROGRAMS["modules"]).resolve() / "node_modules"
        for package in ("express", "ioredis"):
            self.assertTrue((modules / package).is_dir(), f"{package} is not in {modules} (the test clients_npm_install puts it there)")
        shutil.copy(EXAMPLES / "express.mjs", self.folder)
        (self.folder / "node_modules").symlink_to(modules)
        return [program("node", "nodejs"), self.folder / "express.mjs"]


del Example  # has no test of its own


if __name__ == "__main__":
    PROGRAMS["modules"] = sys.argv.pop(3)
    main(sys.argv)
