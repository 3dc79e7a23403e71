#!/usr/bin/env python3
"""Applications that limit their requests by themselves, as tools/examples shows it: applications_test.py TALLYD TALLY MODULES [TEST...]

MODULES is the folder that has node_modules.
"""
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import types

sys.dont_write_bytecode = True
from proxies import LIMIT, LONG_MS, ROOT, Contract, Doors, Plain, free_ports, get, program  # noqa: E402
from processes import PROGRAMS, WAIT_S, main  # noqa: E402

EXAMPLES = ROOT / "tools" / "examples"


class Example(Contract, Doors):
    limit_headers = "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"
    key = "127.0.0.1"

    def door(self, daemon, closed=False, deadline_ms=LONG_MS):
        port, = free_ports(1)
        self.proxy([*self.words(), daemon.socket, "api", port, "closed" if closed else "open", deadline_ms], port, "application")
        return port


class Wsgi(Example):
    def interpreter(self):
        for interpreter in (sys.executable, "/usr/bin/python3"):  # Debian's packages are the latter's, whatever python3 comes first
            if subprocess.run([interpreter, "-c", "import redis"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return interpreter
        raise AssertionError("python3-redis is not installed (Debian: apt-get install python3-redis)")

    def words(self):
        return [self.interpreter(), "-B", EXAMPLES / "wsgi.py"]

    def test_whatever_key_a_request_has_it_is_counted(self):
        daemon = self.daemon()
        code = ("import sys, wsgi\n"
                "limited = wsgi.RateLimit(lambda environ, start: [], sys.argv[1], 'api', key=lambda environ: environ.get('HTTP_X_USER'), deadline_ms=20_000)\n"
                "for more in {}, {'HTTP_X_USER': ''}, {'HTTP_X_USER': 'x' * 2000}:\n"
                "    limited({'wsgi.errors': sys.stderr, **more}, print)\n")
        subprocess.run([self.interpreter(), "-B", "-c", code, str(daemon.socket)], cwd=EXAMPLES, check=True, timeout=WAIT_S)
        plain = Plain(daemon)
        self.assertEqual([plain.ask("TALLY.PEEK", "api", key)[2] for key in ("-", "x" * 1024, "None")], [LIMIT - 2, LIMIT - 1, LIMIT])

    def test_a_connection_that_breaks_while_it_is_kept_lets_in_like_any_absence(self):
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        path = self.folder / "breaks.sock"
        listener.bind(str(path))
        listener.listen()

        def serve():  # answers and goes, the question still unread: so the next look at that connection is an error, not its end
            for _ in range(2):
                connection, _ = listener.accept()
                while not connection.recv(4096, socket.MSG_PEEK).endswith(b"127.0.0.1\r\n"):
                    pass
                connection.sendall(b"*6\r\n:0\r\n:100\r\n:99\r\n:-1\r\n:600\r\n:0\r\n")
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        port = self.door(types.SimpleNamespace(socket=path))
        self.assertEqual(get(port)[0], 200)
        self.assertEqual(get(port)[0], 200)


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
