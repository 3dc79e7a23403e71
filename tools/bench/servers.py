"""What is measured: tallyd, the bare loop, Redis, memcached and nginx, each on a Unix socket and, where there are cores, on one of its own."""
import contextlib
import json
import os
import pathlib
import re
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


def resident_mb(pid):
    """What a process has in memory."""
    return int(re.search(r"VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) / 1000


class Servers:
    def __init__(self, place, pin=True, label=""):
        self.place, self.pin, self.label = place, pin, label
        cores = sorted(os.sched_getaffinity(0))
        both = pin and len(cores) > 1 and shutil.which("taskset")
        self.server_pin = ["taskset", "-c", str(cores[0])] if both else []
        self.generator_pin = ["taskset", "-c", str(cores[1])] if both else []
        self._redis = None

    @contextlib.contextmanager
    def of_their_own(self, label):
        """Servers that end with the block."""
        before = list(self.place.children)
        try:
            yield Servers(self.place, self.pin, label)
        finally:
            self.place.stop([child for child in self.place.children if child not in before])

    def start(self, words, name, path):
        child = self.place.start([*self.server_pin, *map(str, words)], name)
        wait_for(lambda: child.alive() and accepts(path), f"{name} did not start: {last_lines(child.log)}")
        return child

    def tallyd(self, name="tallyd", request=("throttle", *THROTTLE), **config):
        node = Node(self.place, self.label + name.replace(" ", "-"))
        state = self.place.path / f"state-{node.name}"
        state.mkdir()
        node.config.write_text(json.dumps({"node": {"name": node.name, "state_dir": str(state)}, "workers": 1,
                                           "listen": {"resp": [f"unix:{node.socket}"], "http": [f"unix:{node.http}"]}, **config}))
        node.child = self.start([self.place.program("tallyd"), "-c", node.config], node.name, node.socket)
        wait_for(node.ready, f"{node.name} was not ready")
        return Way(name, node.http if request[0] == "http" else node.socket, node.child.pid, list(request))

    def bare_loop(self, keys):
        path = self.place.path / "bare.sock"
        return Way("bare loop", path, self.start([self.place.program("tally_bare_loop"), path, keys], "bare", path).pid, ["throttle", *THROTTLE])

    def redis(self):
        """(path, pid) of one for all that is asked of Redis."""
        if self._redis is None:
            path = self.place.path / f"{self.label}redis.sock"
            child = self.start(["redis-server", "--port", 0, "--unixsocket", path, "--save", "", "--appendonly", "no", "--daemonize", "no",
                                "--dir", self.place.path], f"{self.label}redis", path)
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

    def nginx(self, name, *request):
        """One process that answers every request with 204 and keeps every connection."""
        if shutil.which("nginx") is None:
            raise DemoError("nginx is not installed: tools/bench/run.sh does that")
        folder, path = self.place.path, self.place.path / "nginx.sock"
        temporary = " ".join(f"{kind}_temp_path {folder}/nginx-{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root; " if os.geteuid() == 0 else ""
        conf = folder / "nginx.conf"
        conf.write_text(f"{user}daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log; events {{ worker_connections 4096; }}\n"
                        f"http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; {temporary}\n"
                        f"  server {{ listen unix:{path}; location / {{ return 204; }} }} }}\n")
        child = self.start(["nginx", "-c", conf, "-p", folder, "-e", f"{folder}/nginx.log"], "nginx", path)
        return Way(name, path, child.pid, list(request))
