"""Processes of the demonstration: daemons, relays, Redis, the load driver; each ended by its own pid, whatever happens.

Every child asks the kernel for SIGKILL when its parent dies (PR_SET_PDEATHSIG), so even kill -9 of the demonstration leaves
none behind. Ports are taken from a loopback address of this run's own (127.x.y.1), so two runs do not meet.
"""
import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

READY_S = 20  # a daemon that is not ready by then is a failure
_libc = ctypes.CDLL(None, use_errno=True)


class DemoError(RuntimeError):
    """Something that the demonstration needs did not work; the text says what."""


def _die_with(parent, mask):
    def before_exec():
        _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:      # it died in between
            os._exit(1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return before_exec


@contextlib.contextmanager
def _signals_later():
    """A signal that ends us must not come between a fork and the note of whom we started."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Child:
    """A process of ours with its output in a file (or a pipe)."""

    def __init__(self, words, log, pipes, mask):
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                words, stdin=subprocess.PIPE if pipes else subprocess.DEVNULL, stdout=subprocess.PIPE if pipes else out,
                stderr=out, text=pipes, bufsize=1 if pipes else -1, preexec_fn=_die_with(os.getpid(), mask))
        self.log = log

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def ask(self, line):
        """One line in, one line out."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(5)
            raise DemoError(f"{self.process.args[0]} ended: {last_lines(self.log)}")
        return line

    def stop(self, patience_s=5):
        if self.alive():
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()

    def kill(self):
        if self.alive():
            self.process.kill()
        self.process.wait()


def last_lines(path, count=5):
    try:
        return " | ".join(pathlib.Path(path).read_text(errors="replace").splitlines()[-count:]) or "(it said nothing)"
    except OSError:
        return "(no log)"


PREFIX = "tallyd-demo-"


def sweep(folder):
    """Removes the directories of runs that were killed: nobody holds their lock any more."""
    for path in folder.glob(f"{PREFIX}*"):
        try:
            with open(path / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass  # in use, or not ours


class Workplace:
    """A temporary directory, and the children that were started in it."""

    def __init__(self, build):
        self.build = pathlib.Path(build)
        base = os.environ.get("TMPDIR", "/tmp")
        # A Unix socket's path holds 107 bytes.
        self.path = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX, dir=base if len(base) < 40 else "/tmp"))
        self.lock = open(self.path / "lock.new", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        (self.path / "lock.new").rename(self.path / "lock")  # held from the moment that it can be seen
        sweep(self.path.parent)
        self.address = f"127.{random.randrange(1, 255)}.{random.randrange(256)}.1"
        self.children = []
        self.fleets = 0

    def program(self, name):
        path = self.build / name
        if not path.exists():
            raise DemoError(f"{path} is not there; build it, or run tools/demo.sh")
        return str(path)

    def start(self, words, name, pipes=False):
        with _signals_later() as mask:
            child = Child(words, self.path / f"{name}.log", pipes, mask)
            self.children.append(child)
        return child

    def stop(self, children):
        """Ends all of them at once: first ask each, then wait."""
        for child in children:
            if child.alive():
                child.process.terminate()
        for child in children:
            child.stop()
            if child in self.children:
                self.children.remove(child)

    def close(self, keep=False):
        self.stop(list(self.children))
        if keep:
            (self.path / "lock").unlink()  # or the next run would sweep it away
            print(f"kept: {self.path}")
        else:
            shutil.rmtree(self.path, ignore_errors=True)
        self.lock.close()

    def free_ports(self, count):
        """`count` UDP ports that nobody had a moment ago. Whoever starts on them must be ready to try again."""
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
        try:
            for each in sockets:
                each.bind((self.address, 0))
            return [f"{self.address}:{each.getsockname()[1]}" for each in sockets]
        finally:
            for each in sockets:
                each.close()


def wait_for(condition, what, seconds=READY_S):
    """Asks again and again, at growing distances, until the condition holds."""
    end = time.monotonic() + seconds
    pause = 0.002
    while not condition():
        if time.monotonic() > end:
            raise DemoError(f"{what} within {seconds} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


class UnixHttp(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=5)
        self.unix_path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.unix_path)


def http_get(path, target):
    """(status, body) of a GET over a Unix socket; (0, "") where nobody answers."""
    connection = UnixHttp(path)
    try:
        connection.request("GET", target)
        reply = connection.getresponse()
        return reply.status, reply.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


class Resp:
    """A plain RESP2 connection, for questions rather than for load."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        self.file = self.socket.makefile("rb")

    def __call__(self, *words):
        return self.many([words])[0]

    def many(self, questions):
        """As many answers, in one round trip."""
        out = b""
        for words in questions:
            out += b"*%d\r\n" % len(words)
            for word in words:
                raw = str(word).encode()
                out += b"$%d\r\n%s\r\n" % (len(raw), raw)
        self.socket.sendall(out)
        return [self._read() for _ in questions]

    def _read(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise DemoError("the daemon closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"*":
            return [self._read() for _ in range(int(rest))]
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2].decode(errors="replace")
        if kind == b"-":
            raise DemoError(rest.decode(errors="replace"))
        return int(rest) if kind == b":" else rest.decode(errors="replace")

    def close(self):
        self.file.close()
        self.socket.close()


def ask(path, *words):
    """One question, over RESP, on a connection of its own."""
    connection = Resp(path)
    try:
        return connection(*words)
    finally:
        connection.close()


def as_map(flat):
    return dict(zip(flat[0::2], flat[1::2]))


SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Node:
    def __init__(self, place, name):
        self.place, self.name = place, name
        self.socket = place.path / f"{name}.sock"
        self.http = place.path / f"{name}.http"
        self.config = place.path / f"{name}.json"
        self.entry = None  # as the peers name it
        self.child = None

    def start(self):
        self.child = self.place.start([self.place.program("tallyd"), "-c", str(self.config)], self.name)

    def ready(self):
        if not self.child.alive():
            raise DemoError(f"{self.name} ended at once: {last_lines(self.child.log)}")
        return http_get(self.http, "/readyz")[0] == 200

    def ask(self, *words):
        return ask(self.socket, *words)

    def metrics(self):
        """[(name, labels, value), ...]"""
        status, text = http_get(self.http, "/metrics")
        if status != 200:
            raise DemoError(f"{self.name} shows no metrics")
        found = []
        for line in text.splitlines():
            match = None if line.startswith("#") else SAMPLE.match(line)
            if match:
                found.append((match.group(1), dict(LABEL.findall(match.group(3) or "")), float(match.group(4))))
        return found


class Fleet:
    """`count` daemons on loopback that share the rules; with `alone` they know nothing of each other.

    With `delay_ms` every datagram between them goes through a relay: the peers' entries are the relay's ports, each daemon
    says by cluster.self which of them it is and binds another. `cluster`: more of that part of the configuration.
    """

    def __init__(self, place, count, rules, alone=False, sync_ms=100, delay_ms=0, keys=65536, cluster=None):
        place.fleets += 1
        self.place, self.count, self.rules, self.keys, self.cluster = place, count, rules, keys, cluster or {}
        self.alone, self.sync_ms, self.delay_ms = alone, sync_ms, delay_ms
        self.relay = None
        for attempt in range(3):
            label = f"f{place.fleets}" + (f"r{attempt}" if attempt else "")
            self.nodes = [Node(place, f"{label}n{i + 1:02}") for i in range(count)]
            try:
                self._start(label)
                return
            except DemoError as problem:
                self.stop()
                if "in use" not in str(problem).lower() or attempt == 2:
                    raise

    def _start(self, label):
        binds = [] if self.alone else self.place.free_ports(self.count * (2 if self.delay_ms else 1))
        entries = binds[:self.count]
        if self.delay_ms:
            binds = binds[self.count:]
            pairs = [f"{entry}={bind}" for entry, bind in zip(entries, binds)]
            self.relay = self.place.start(
                [self.place.program("tally_relay"), "udp", str(self.delay_ms * 1000), *pairs], f"{label}-relay", pipes=True)
            self.relay.answer()
        for i, node in enumerate(self.nodes):
            config = {
                "node": {"name": node.name, "state_dir": str(self.place.path / f"{node.name}.state")},
                "listen": {"resp": [f"unix:{node.socket}"], "http": [f"unix:{node.http}"]},
                "table": {"keys": self.keys}, "workers": 1, "rules": self.rules,
            }
            if not self.alone:
                node.entry = entries[i]
                config["cluster"] = {"bind": binds[i], "self": entries[i], "peers": entries,
                                     "sync_interval": f"{self.sync_ms}ms", **self.cluster}
            node.config.write_text(json.dumps(config, indent=1))
            (self.place.path / f"{node.name}.state").mkdir(exist_ok=True)
            node.start()
        for node in self.nodes:
            wait_for(node.ready, f"{node.name} was not ready")
        if not self.alone:
            for node in self.nodes:
                wait_for(lambda node=node: self._hears_all(node), f"{node.name} did not hear from all its peers")

    def _hears_all(self, node):
        up = [value for name, _, value in node.metrics() if name == "tallyd_peer_up"]
        return len(up) >= self.count - 1 and all(up)

    def sum(self, metric, **labels):
        """The sum of a metric over the fleet, of the samples that carry these labels."""
        return sum(value for node in self.nodes if node.child.alive() for name, has, value in node.metrics()
                   if name == metric and all(has.get(k) == v for k, v in labels.items()))

    def stop(self):
        children = [node.child for node in self.nodes if node.child] + ([self.relay] if self.relay else [])
        self.place.stop(children)
        self.relay = None


class Redis:
    """One Redis on a Unix socket, and on a port where one is given; nothing kept on disk but by its `settings`."""

    def __init__(self, place, name="redis", port="0", settings=(), program=("redis-server",)):
        if not shutil.which("redis-server"):
            raise DemoError("redis-server is not installed (apt-get install redis-server)")
        self.place, self.name = place, name
        self.socket = place.path / f"{name}.sock"
        folder = place.path / f"{name}.redis"
        folder.mkdir()
        kept = [] if "--sentinel" in program else ["--save", "", "--appendonly", "no"]
        self.words = [*program, "--port", port, "--bind", place.address, "--unixsocket", str(self.socket), "--daemonize", "no", "--dir", str(folder), *kept, *settings]
        self.start()

    def start(self):
        self.child = self.place.start(self.words, self.name)
        wait_for(self.ready, "redis-server did not answer")

    def ask(self, *words):
        return ask(self.socket, *words)

    def behind(self, delay_ms):
        """A path that leads there, by a relay that takes so long each way."""
        path = self.place.path / f"{self.name}-{len(self.place.children)}.sock"
        relay = self.place.start([self.place.program("tally_relay"), "stream", str(round(delay_ms * 1000)), str(path), str(self.socket)],
                                 path.stem, pipes=True)
        relay.answer()
        return path

    def ready(self):
        if not self.child.alive():
            raise DemoError(f"redis-server ended at once: {last_lines(self.child.log)}")
        try:
            return self.ask("PING") == "PONG"
        except (OSError, DemoError):  # not there yet, or it loads
            return False


class Load:
    """The load driver: a plan of shots, then what became of them."""

    def __init__(self, place):
        self.child = place.start([place.program("tally_load")], "load", pipes=True)
        self.opened = {}

    def open(self, name, path):
        """Connects, once for each name and path."""
        if self.opened.get(name) == str(path):
            return
        answer = json.loads(self.child.ask(f"open {name} {path}"))
        if "error" in answer:
            raise DemoError(answer["error"])
        self.opened[name] = str(path)

    def forget(self, name):
        """The other end is gone or will be: connect anew next time."""
        self.opened.pop(name, None)

    def shot(self, at_s, tag, connection, request, count=1, depth=0):
        self.child.process.stdin.write(f"shot {max(0, int(at_s * 1e6))} {tag} {connection} {count} {depth} {request}\n")

    def kill(self, at_s, pid):
        self.child.process.stdin.write(f"kill {int(at_s * 1e6)} {pid}\n")

    def begin(self, timeout_s):
        self.child.process.stdin.write(f"run {int(timeout_s * 1000)}\n")
        self.child.process.stdin.flush()

    def finish(self):
        return Outcome(json.loads(self.child.answer()))

    def run(self, timeout_s):
        self.begin(timeout_s)
        return self.finish()


class Outcome:
    def __init__(self, raw):
        self.raw = raw
        self.start_s, self.end_s, self.late_ms = raw["start_us"] / 1e6, raw["end_us"] / 1e6, raw["late_us"] / 1e3

    def flows(self, group):
        return {name.split("/", 1)[1]: flow for name, flow in self.raw["flows"].items() if name.split("/", 1)[0] == group}

    def total(self, group, field):
        return sum(flow[field] for flow in self.flows(group).values())

    def admitted(self, group):
        return self.total(group, "admitted")

    def offered(self, group):
        return self.total(group, "offered")

    def reasons(self, group):
        return [sum(column) for column in zip(*(flow["reasons"] for flow in self.flows(group).values()))]

    def latency(self, group):
        """(median, p99, max) in ms."""
        g = self.raw["groups"].get(group, {"p50_us": 0, "p99_us": 0, "max_us": 0})
        return g["p50_us"] / 1e3, g["p99_us"] / 1e3, g["max_us"] / 1e3

    def errors(self):
        return [flow["first_error"] for flow in self.raw["flows"].values() if flow["errors"]]
