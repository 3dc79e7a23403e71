"""A fleet of tallyd processes, each on a host of its own in a network that network.py makes."""
import json
import subprocess

from fleet import DemoError, Fleet, Node, wait_for
from network import Unavailable
from rows import shown

PORT = 8381


class HostNode(Node):
    def __init__(self, place, name, network, host):
        super().__init__(place, name)
        self.network, self.host = network, host

    def start(self):
        words = self.network.words(self.host, [self.place.program("tallyd"), "-c", self.config])
        self.child = self.place.start(words, self.name)


def make_secret(place):
    """Beyond loopback a fleet needs one."""
    path = place.path / "secret"
    if not path.exists():
        done = subprocess.run([place.program("tally"), "secret", str(path)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DemoError(f"tally secret: {done.stderr}")
    return path


class HostFleet(Fleet):
    """One tallyd on each of the network's hosts (or on those named), at 10.77.0.N:8381 or [fd00::N]:8381.

    All are peers; or, where `guests` are named (or none of them: `()`), the others are aggregators, and these are in no list and have any port. `cluster` is laid
    over each node's section of that name, so `sync_interval` and `upstream` are set there.
    """

    def __init__(self, place, network, rules, hosts=None, ipv6=False, guests=None, **cluster):
        place.fleets += 1
        self.place, self.network, self.rules, self.relay = place, network, rules, None
        names = list(hosts or network.hosts)
        self.count, self.cluster, self.guests = len(names), cluster, guests
        self.nodes = [HostNode(place, f"f{place.fleets}{name}", network, name) for name in names]
        for node in self.nodes:
            address = network.hosts[node.host].ipv6 if ipv6 else network.hosts[node.host].ipv4
            port = 0 if self._is_guest(node) else PORT
            node.entry = f"[{address}]:{port}" if ipv6 else f"{address}:{port}"
        self.secret = make_secret(place)
        try:
            self._start_all()
        except BaseException:
            self.stop()
            raise

    def _start_all(self):
        for node in self.nodes:
            self.configure(node)
            (self.place.path / f"{node.name}.state").mkdir(exist_ok=True)
            node.start()
        for node in self.nodes:
            wait_for(node.ready, f"{node.name} was not ready")
        for node in self.nodes:
            wait_for(lambda node=node: self._hears_all(node), f"{node.name} did not hear from all its peers")

    def _is_guest(self, node):
        return node.host in (self.guests or ())

    def _listed(self):
        return [node for node in self.nodes if not self._is_guest(node)]

    def _hears_all(self, node):
        if self.guests is None:
            return super()._hears_all(node)
        told = node.metrics()
        up = [value for name, _, value in told if name == "tallyd_peer_up"]
        if self._is_guest(node):
            return len(up) >= len(self._listed()) and all(up)
        known = sum(value for name, _, value in told if name == "tallyd_guests")
        return len(up) >= len(self._listed()) - 1 + len(self.cluster.get("upstream") or ()) and all(up) and known >= len(self.guests)

    def _roster(self):
        return {"peers" if self.guests is None else "aggregators": [node.entry for node in self._listed()]}

    def configure(self, node, **changes):
        """Writes the node's file; `changes` are laid over its section `cluster`."""
        node.config.write_text(json.dumps({
            "node": {"name": node.name, "state_dir": str(self.place.path / f"{node.name}.state")},
            "listen": {"resp": [f"unix:{node.socket}"], "http": [f"unix:{node.http}"]},
            "table": {"keys": 65536}, "workers": 1, "rules": self.rules,
            "cluster": {"bind": node.entry, **self._roster(), "secret_file": str(self.secret), "sync_interval": "100ms", **self.cluster, **changes}}, indent=1))

    def on(self, hosts):
        return [node for node in self.nodes if node.host in hosts]

    def by_entry(self, entry):
        return next(node for node in self.nodes if entry in (node.entry, node.name))


def on_hosts(name, measure):
    """The case as a function of the ground: where there can be no network, a row that says so."""
    def run(ground):
        try:
            yield from measure(ground)
        except Unavailable as problem:
            yield shown(name, f"skipped: {problem}", [])
    return run
