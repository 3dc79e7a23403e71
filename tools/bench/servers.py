"""What is measured: tallyd, the bare loop, Redis and memcached, each on a Unix socket and, where there are cores, on one of its own."""
import json
import os
import pathlib
import shutil
import socket
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "demo"))
from fleet import DemoError, Node, Resp, last_lines, wait_for  # noqa: E402

THROTTLE = ["15", "30", "60"]  # max_burst, count, period: 16 at once, 30 a minute
MEMORY_MB = 4096               # of memcached, at most


class Way:
    """A server and what it is asked."""

    def __init__(self, name, path, pid, request):
        self.name, self.path, self.pid, self.request = name, str(path), pid, request


def accepts(path):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


class Servers:
    def __init__(self, place, pin=True):
        self.place = place
        cores = sorted(os.sched_getaffinity(0))
        pin = pin and len(cores) > 1 and shutil.which("taskset")
        self.server_pin = ["taskset", "-c", str(cores[0])] if pin else []
        self.generator_pin = ["taskset", "-c", str(cores[1])] if pin else []
        self._redis = None

    def start(self, words, name, path):
        child = self.place.start([*self.server_pin, *map(str, words)], name)
        wait_for(lambda: child.alive() and accepts(path), f"{name} did not start: {last_lines(child.log)}")
        return child

    def tallyd(self, name="tallyd", request=("throttle", *THROTTLE), **config):
        node = Node(self.place, name.replace(" ", "-"))
        state = self.place.path / f"state-{node.name}"
        state.mkdir()
        node.config.write_text(json.dumps({"node": {"name": node.name, "state_dir": str(state)}, "workers": 1,
                                           "listen": {"resp": [f"unix:{node.socket}"], "http": [f"unix:{node.http}"]}, **config}))
        node.child = self.start([self.place.program("tallyd"), "-c", node.config], node.name, node.socket)
        wait_for(node.ready, f"{node.name} was not ready")
        return Way(name, node.socket, node.child.pid, list(request))

    def bare_loop(self, keys):
        path = self.place.path / "bare.sock"
        return Way("bare loop", path, self.start([self.place.program("tally_bare_loop"), path, keys], "bare", path).pid, ["throttle", *THROTTLE])

    def redis(self):
        """(path, pid) of one for all that is asked of Redis."""
        if self._redis is None:
            path = self.place.path / "redis.sock"
            child = self.start(["redis-server", "--port", 0, "--unixsocket", path, "--save", "", "--appendonly", "no", "--daemonize", "no",
                                "--dir", self.place.path], "redis", path)
            self._redis = (path, child.pid)
        return self._redis

    def redis_way(self, name, *request):
        return Way(name, *self.redis(), list(request))

    def redis_script(self, name, file, lines, *arguments):
        connection = Resp(self.redis()[0])
        try:
            sha = connection("SCRIPT", "LOAD", (HERE / file).read_text())
        finally:
            connection.close()
        return self.redis_way(name, "evalsha", sha, str(lines), *arguments)

    def memcached(self):
        if shutil.which("memcached") is None:
            raise DemoError("memcached is not installed: tools/bench/run.sh does that")
        path = self.place.path / "memcached.sock"
        child = self.start(["memcached", "-s", path, "-t", 1, "-m", MEMORY_MB, "-u", "root", "-c", 1024], "memcached", path)
        return Way("memcached incr", path, child.pid, ["memcached"])
