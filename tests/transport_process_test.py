#!/usr/bin/env python3
"""By which way nodes speak: transport_process_test.py TALLYD TALLY [TEST...]

Each daemon on a host of its own (a network namespace), between which UDP is cut in one direction or in both while TCP passes. Needs root and TUN; says so
and is skipped (exit 77) elsewhere.
"""
import sys
import time

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from namespaces import need_network  # noqa: E402
from network import Network  # noqa: E402
from processes import DAY, PROGRAMS, WAIT_S, Case, Plain, run  # noqa: E402

STRICT = {"algorithm": "fixed_window", "window": DAY, "max_overcount": 0, "on_isolation": "closed"}
RULES = [{"name": "login", "limit": 5, "wait": "10s", **STRICT}, {"name": "api", "limit": 300, "wait": "1s", **STRICT}]


class Ways(Case):
    HOSTS = ["n0", "n1", "n2"]

    def setUp(self):
        super().setUp()
        self.network = Network(self.HOSTS)
        self.addCleanup(self.network.close)
        self.assertEqual(run(PROGRAMS["tally"], "secret", self.folder / "secret").returncode, 0)
        self.listed = {self.at(name): name for name in self.HOSTS if name.startswith("n")}
        self.plain = {}
        self.keys = (f"key-{n}" for n in range(1000))

    def at(self, name):
        return f"{self.network.hosts[name].ipv4}:8381"

    def daemon(self, name, **cluster):
        config = self.write({"node": {"state_dir": str(self.folder / f"state-{name}")}, "table": {"keys": 4096}, "workers": 1, "rules": RULES,
                             "listen": {"http": [f"unix:{self.folder}/http-{name}"]},
                             "cluster": {"bind": self.at(name), "sync_interval": "20ms", "isolation_after": "1h",
                                         "secret_file": str(self.folder / "secret"), **cluster}}, f"{name}.json")
        return self.start("-c", config, name=name, inside=self.network.words(name, []))

    def client(self, node):
        if node not in self.plain:
            self.plain[node] = Plain(node)
        return self.plain[node]

    def peers(self, node):
        """{name of the peer's host: its row}; guests are called by their addresses."""
        table = self.client(node).ask("TALLY.PEERS")
        rows = {}
        for entry, row in zip(table[::2], table[1::2]):
            row = dict(zip([name.decode() for name in row[::2]], row[1::2]))
            if not row["self"]:
                rows[self.listed.get(entry.decode(), entry.decode())] = row
        return rows

    def until(self, what, *words):
        end = time.monotonic() + WAIT_S
        while not what():
            self.assertLess(time.monotonic(), end, words or what)

    def by(self, node, transport, *others):
        return all(row["transport"].decode() == transport and row["up"] for name, row in self.peers(node).items() if not others or name in others)

    def until_by(self, transport, nodes, *others):
        for node in nodes:
            self.until(lambda node=node: self.by(node, transport, *others), node.name, transport, others)

    def share(self, nodes):
        """A key of nobody's yet: all of its limit, whoever asks, and no more."""
        for _ in range(6):  # owned by one or another
            key = next(self.keys)
            replies = [self.client(node).ask("TALLY.TAKE", "login", key)[0] for node in nodes * 4]
            self.assertEqual(replies.count(0), 5, (key, replies))

    def metric(self, node, name):
        text = run("curl", "-s", "--unix-socket", self.folder / f"http-{node.name}", "http://x/metrics").stdout
        return next(float(line.split()[-1]) for line in text.splitlines() if line.rsplit(" ", 1)[0] == name)


class Lists(Ways):
    def fleet(self):
        return [self.daemon(name, peers=list(self.listed)) for name in self.listed.values()]

    def test_udp_is_cut_in_both_directions_and_comes_back(self):
        nodes = [node.ready() for node in self.fleet()]
        self.share(nodes)
        self.assertTrue(all(self.by(node, "udp") for node in nodes))
        self.network.cut("*", "*", "udp")
        self.until_by("tcp", nodes)
        self.share(nodes)
        shown = run(PROGRAMS["tally"], "-s", nodes[0].socket, "peers").stdout.splitlines()
        column = shown[0].index("transport")
        self.assertEqual(sorted(line[column:column + 3].strip() for line in shown[1:]), ["", "tcp", "tcp"])
        self.until(lambda: nodes[0].text().count("UDP to or from the peer does not pass: by TCP now") == 2)
        self.network.join("*", "*")
        self.until_by("udp", nodes)
        self.share(nodes)
        self.until(lambda: nodes[0].text().count("the peer is spoken to by UDP again") == 2)
        self.assertEqual(nodes[0].text().count("by TCP now"), 2)
        self.assertEqual(self.metric(nodes[0], f'tallyd_peer_transport{{peer="{self.at("n1")}",transport="udp"}}'), 1)
        self.assertEqual([node.end() for node in nodes], [0, 0, 0])

    def test_one_direction_of_one_pair_is_cut_and_both_ends_use_tcp_and_nobody_else(self):
        nodes = [node.ready() for node in self.fleet()]
        self.network.cut("n0", "n1", "udp")
        self.until_by("tcp", nodes[:1], "n1")
        self.until_by("tcp", nodes[1:2], "n0")
        for _ in range(3):
            self.share(nodes)
        self.assertTrue(self.by(nodes[2], "udp") and self.by(nodes[0], "udp", "n2") and self.by(nodes[0], "tcp", "n1") and self.by(nodes[1], "tcp", "n0"))
        self.network.join("*", "*")
        self.until_by("udp", nodes)
        self.share(nodes)
        self.until(lambda: [node.text().count("the peer is spoken to by UDP again") for node in nodes] == [1, 1, 0])
        self.assertEqual([node.text().count("by TCP now") for node in nodes], [1, 1, 0])

    def test_a_fleet_starts_and_a_member_comes_back_where_udp_never_passes(self):
        self.network.cut("*", "*", "udp")
        nodes = [node.ready() for node in self.fleet()]
        self.until_by("tcp", nodes)
        self.share(nodes)
        for again in (9, 15):
            nodes[2].end(again)
            nodes[2] = self.daemon("n2", peers=list(self.listed)).ready()
            self.until_by("tcp", nodes)
            self.share(nodes)

    def test_where_tcp_does_not_pass_either_nothing_else_changes(self):
        nodes = [node.ready() for node in self.fleet()]
        self.network.split("n2", "n0,n1")
        self.until(lambda: not self.peers(nodes[0])["n2"]["up"])
        self.share(nodes[:2])
        self.network.join("*", "*")
        self.until_by("udp", nodes)
        self.share(nodes)


class Guests(Ways):
    HOSTS = ["n0", "n1", "n2", "g0", "g1"]

    def setUp(self):
        super().setUp()
        self.aggregators = [self.daemon(name, aggregators=list(self.listed)) for name in self.listed.values()]
        self.guests = [self.daemon(name, aggregators=list(self.listed), bind=self.at(name).replace("8381", "0")).ready() for name in ("g0", "g1")]

    def takes(self):
        self.share(self.guests)

    def guests_of(self, node):
        return [row["transport"].decode() for row in self.peers(node).values() if row["role"] == b"guest"]

    def cut_and_back(self, *cuts):
        self.takes()
        for senders, receivers in cuts:
            self.network.cut(senders, receivers, "udp")
        self.until_by("tcp", self.guests)
        self.takes()
        for node in self.aggregators:
            self.until(lambda node=node: self.guests_of(node) == ["tcp", "tcp"])
            self.assertEqual(self.metric(node, "tallyd_guests_by_tcp"), 2)
        self.takes()
        self.assertTrue(all(self.by(node, "udp", *self.listed.values()) for node in self.aggregators))
        self.network.join("*", "*")
        self.until_by("udp", self.guests)
        for node in self.aggregators:
            self.until(lambda node=node: self.guests_of(node) == ["udp", "udp"])
        self.takes()

    def test_their_udp_is_cut_in_both_directions(self):
        self.cut_and_back(("g0,g1", "*"), ("*", "g0,g1"))

    def test_what_they_say_by_udp_is_lost(self):
        self.cut_and_back(("g0,g1", "n0,n1,n2"))

    def test_what_is_said_to_them_by_udp_is_lost(self):
        self.cut_and_back(("n0,n1,n2", "g0,g1"))


if __name__ == "__main__":
    need_network()
    processes.main(sys.argv)
