"""A tallyd for a test: started on a Unix socket in a folder of its own and on a free port of the loopback, waited for, ended
by its pid.

What it checks for everybody who uses it: that the daemon said it was ready, lived as long as the test, and left with 0.
"""
import ctypes
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time

READY_S = 30  # also under sanitizers; a daemon that is not ready by then is a failure
STOP_S = 30

CONFIG = {
    "rules": [
        {"name": "login", "limit": 100, "window": "366d", "algorithm": "fixed_window"},
        {"name": "api", "limit": 100, "window": "366d"},
        {"name": "feed", "algorithm": "token_bucket", "rate": "1/h", "burst": 100},
        {"name": "watched", "limit": 1, "window": "366d", "shadow": True},
        {"name": "big", "limit": 1000000, "window": "366d", "algorithm": "fixed_window"},
    ]
}

_libc = ctypes.CDLL(None, use_errno=True)


class ServerError(Exception):
    """The daemon did not do what every test takes for granted; the text has its log."""


def _die_with(parent):
    def before_exec():
        _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a test that is killed leaves no daemon
        if os.getppid() != parent:
            os._exit(1)
    return before_exec


class Server:
    """with Server(path of tallyd) as server: ... server.socket ..."""

    def __init__(self, tallyd, config=None):
        self.tallyd = tallyd
        self.config = dict(CONFIG if config is None else config)

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="tally-")
        folder = pathlib.Path(self._folder.name)
        self.socket = str(folder / "t.sock")
        self.log = folder / "log"
        self.config.setdefault("node", {"name": "test", "state_dir": str(folder)})
        self.config.setdefault("listen", {"resp": ["unix:" + self.socket, "127.0.0.1:0"], "http": []})
        self.config.setdefault("workers", 2)
        self.config.setdefault("table", {"keys": 65536})
        (folder / "tallyd.json").write_text(json.dumps(self.config))
        try:
            self._start(folder)
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def _start(self, folder):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified, open(self.log, "wb") as log:
            notified.bind(str(folder / "notify"))
            notified.settimeout(0.2)
            environment = dict(os.environ, NOTIFY_SOCKET=str(folder / "notify"))
            self.process = subprocess.Popen([self.tallyd, "-c", str(folder / "tallyd.json")], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env=environment, preexec_fn=_die_with(os.getpid()))
            self._wait_until_ready(notified)

    def _wait_until_ready(self, notified):
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            try:
                if b"READY=1" in notified.recv(4096):
                    return
            except TimeoutError:
                if not self.alive():
                    raise ServerError(f"{self.tallyd} ended with {self.process.returncode}:\n{self.text()}") from None
        self._end()
        raise ServerError(f"{self.tallyd} was not ready within {READY_S} s:\n{self.text()}")

    def text(self):
        return self.log.read_text(errors="replace")

    def alive(self):
        return self.process.poll() is None

    def _end(self):
        if self.alive():
            self.process.kill()
        self.process.wait()

    def __exit__(self, kind, error, trace):
        try:
            if not self.alive():
                raise ServerError(f"tallyd ended by itself with {self.process.returncode}:\n{self.text()}")
            self.process.send_signal(signal.SIGTERM)
            try:
                status = self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                raise ServerError(f"tallyd did not end within {STOP_S} s of SIGTERM:\n{self.text()}") from None
            if status != 0:
                raise ServerError(f"tallyd ended with {status} on SIGTERM:\n{self.text()}")
        finally:
            self._end()
            self._folder.cleanup()

    @property
    def port(self):
        found = re.search(r"serving RESP address=127\.0\.0\.1:(\d+)", self.text())
        if found is None:
            raise ServerError(f"the log does not tell the port:\n{self.text()}")
        return int(found[1])

    def connect(self, timeout_s=30, tcp=False):
        connection = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
        connection.settimeout(timeout_s)
        connection.connect(("127.0.0.1", self.port) if tcp else self.socket)
        return connection


def encode(*words):
    """A command as an array of bulk strings."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


class ReplyError(Exception):
    """An error reply, as its text."""


class Replies:
    """Reads the replies (RESP2) that come on a socket."""

    def __init__(self, connection):
        self._connection = connection  # no makefile: that would hold the connection open
        self._buffer = b""

    def _more(self):
        chunk = self._connection.recv(65536)
        if not chunk:
            raise EOFError(f"the connection ended in a reply: {self._buffer!r}")
        self._buffer += chunk

    def _line(self):
        while b"\r\n" not in self._buffer:
            self._more()
        line, self._buffer = self._buffer.split(b"\r\n", 1)
        return line

    def _bytes(self, size):
        while len(self._buffer) < size + 2:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size + 2:]
        return data

    def next(self):
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            return ReplyError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._bytes(int(rest))
        if kind == b"*":
            return [self.next() for _ in range(int(rest))]
        raise ValueError(f"not a reply: {line!r}")


class Plain:
    """The plainest client there is: what other clients' effects are checked with."""

    def __init__(self, server):
        self._connection = server.connect()
        self._replies = Replies(self._connection)

    def ask(self, *words):
        self._connection.sendall(encode(*words))
        return self._replies.next()

    def ask_all(self, commands):
        self._connection.sendall(b"".join(encode(*words) for words in commands))
        return [self._replies.next() for _ in commands]

    def close(self):
        self._connection.close()
