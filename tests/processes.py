"""tallyd as a process, for tests: started in a folder of its own, waited for by its notifications, ended by its pid."""
import contextlib
import json
import os
import pathlib
import random
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True  # the sources' folder stays as it is
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "clients"))
from server import Replies, _die_with, encode  # noqa: E402

PROGRAMS = {}  # "tallyd" and "tally": where they are
PORTS = 10_000, int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
WAIT_S = 60    # for anything that is certain to come; also under sanitizers
DAY = "366d"


def free_ports(n):
    """Ports that were free just now, of UDP and of TCP; none of those that the system gives away by itself, to whoever binds port 0."""
    held, ports = [], []
    try:
        while len(ports) < n:
            port = random.randrange(*PORTS)
            held += [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
            with contextlib.suppress(OSError):
                for one in held[-2:]:
                    one.bind(("127.0.0.1", port))
                ports.append(port)
        return ports
    finally:
        for one in held:
            one.close()


class Daemon:
    """One tallyd. Its folder is its home; `arguments` come after those that keep it there, `inside` before all of them."""

    def __init__(self, folder, arguments=(), name=None, inside=()):
        self.folder, self.name, self.clients = pathlib.Path(folder), name, []
        self.socket = str(self.folder / (f"tallyd-{name}.sock" if name else "tallyd.sock"))
        self.log = self.folder / f"log-{name or 'bare'}"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = self.folder / f"notify-{name or 'bare'}"
        path.unlink(missing_ok=True)
        self._notify.bind(str(path))
        self._notify.settimeout(WAIT_S)
        environment = dict(os.environ, NOTIFY_SOCKET=str(path), XDG_RUNTIME_DIR=str(folder), XDG_STATE_HOME=str(folder))
        words = [*inside, PROGRAMS["tallyd"], *(["--name", name] if name else []), *arguments]
        if not any(str(word).startswith("--listen-resp") for word in words):
            words += ["--listen-resp", "unix:" + self.socket]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                                            preexec_fn=_die_with(os.getpid()))

    def wait_for(self, state):
        ended = os.pidfd_open(self.process.pid)
        try:
            while True:
                if self._notify in select.select([self._notify, ended], [], [], WAIT_S)[0]:
                    if state in self._notify.recv(4096).decode():
                        return self
                else:
                    raise AssertionError(f"tallyd did not say {state}:\n{self.text()}")
        finally:
            os.close(ended)

    def ready(self):
        return self.wait_for("READY=1")

    def text(self):
        return self.log.read_text(errors="replace")

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.ended()

    def ended(self):
        try:
            return self.process.wait(WAIT_S)
        finally:
            self.kill()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for one in (self._notify, *self.clients):
            one.close()

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(WAIT_S)
        connection.connect(self.socket)
        return connection

    def http(self):
        return re.search(r"serving HTTP address=(\S+)", self.text()).group(1)


class Plain:
    def __init__(self, daemon):
        self.connection = daemon.connect()
        daemon.clients.append(self.connection)
        self._replies = Replies(self.connection)

    def send(self, *commands):
        self.connection.sendall(b"".join(encode(*words) for words in commands))

    def next(self):
        return self._replies.next()

    def ask(self, *words):
        self.send(words)
        return self.next()

    def stats(self):
        flat = self.ask("TALLY.STATS")
        return dict(zip([name.decode() for name in flat[::2]], flat[1::2]))

    def silent(self):
        """Nothing has come so far."""
        return select.select([self.connection], [], [], 0)[0] == []

    def until(self, what):
        """Asks for the statistics until they say so; each answer is an event of the daemon. After WAIT_S it is a failure."""
        end = time.monotonic() + WAIT_S
        while True:
            stats = self.stats()
            if what(stats):
                return stats
            if time.monotonic() > end:
                raise AssertionError(f"what was waited for does not come; the last statistics: {stats}")


def run(*words, folder=None, **more):
    environment = dict(os.environ, **({"XDG_RUNTIME_DIR": str(folder), "XDG_STATE_HOME": str(folder)} if folder else {}))
    return subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=WAIT_S, env=environment, **more)


class Case(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory(prefix="tally-")
        self.folder = pathlib.Path(self._folder.name)
        self.addCleanup(self._folder.cleanup)

    def start(self, *arguments, name=None, inside=()):
        daemon = Daemon(self.folder, arguments, name, inside)
        self.addCleanup(daemon.kill)
        return daemon

    def write(self, config, name="tallyd.json"):
        path = self.folder / name
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        return path

    def small(self, **more):
        return self.write({"node": {"state_dir": str(self.folder / "tallyd")}, "table": {"keys": 4096}, "workers": 2, **more})


def main(words):
    """PROGRAM TALLYD TALLY [TEST...]"""
    PROGRAMS["tallyd"], PROGRAMS["tally"] = words[1:3]
    unittest.main(module="__main__", argv=[words[0], *words[3:]], verbosity=1)
