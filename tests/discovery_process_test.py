#!/usr/bin/env python3
"""Daemons that find each other by names: discovery_process_test.py TALLYD TALLY [TEST...]

In a network of the test's own with a name server of the test's own (name_server.py); ends with 77 where the machine does not allow that.
"""
import itertools
import json
import pathlib
import re
import signal
import sys
import time
import urllib.request

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import name_server  # noqa: E402
import processes  # noqa: E402
from processes import DAY, PROGRAMS, WAIT_S, Case, Daemon, Plain, run  # noqa: E402

SKIPPED = 77
PORT = 8381
NAMES = [f"{letter}.tally.test" for letter in "abc"]
HOMES = ["127.0.0.2", "127.0.0.12", "127.0.0.22"]
RULES = [{"name": "login", "limit": 5, "window": DAY, "algorithm": "fixed_window", "max_overcount": 0, "wait": "2s", "on_isolation": "closed"},
         {"name": "api", "limit": 3000, "window": DAY, "algorithm": "fixed_window", "max_overcount": "10%"}]


class Discovery(Case):
    def setUp(self):
        super().setUp()
        self.server = name_server.NameServer()
        self.addCleanup(self.server.close)
        self.entries = [f"{name}:{PORT}" for name in NAMES]
        self.nodes = {}
        self.secret = {}
        self.list = "peers"

    def node(self, i, bind):
        """Starts it, in place of one that has ended; one behind the entries is a guest."""
        config = self.write({"node": {"state_dir": str(self.folder / "tallyd")}, "table": {"keys": 4096}, "workers": 1, "rules": RULES,
                             "listen": {"http": ["127.0.0.1:0"]},
                             "cluster": {"sync_interval": "20ms", "isolation_after": "1h", "bind": bind, self.list: self.entries, **self.secret}}, f"n{i}.json")
        own = ["--self", self.entries[i]] if i < len(self.entries) else []
        self.nodes[i] = Daemon(self.folder, ["-c", config, *own], name=f"n{i}")
        self.addCleanup(self.nodes[i].kill)
        self.nodes[i].wait_for("STATUS=asking the other nodes")
        self.until_logged(i, "serving HTTP")
        return self.nodes[i]

    def at_home(self):
        """All three, each with its name at an address of its own."""
        for name, home in zip(NAMES, HOMES):
            self.server.say(name, A=[home])
        for i, home in enumerate(HOMES):
            self.node(i, f"{home}:{PORT}")
        return [self.nodes[i].ready() for i in range(3)]

    def until(self, what, said):
        """Each look at the daemons is an answer of one of them."""
        end = time.monotonic() + WAIT_S
        clients = [Plain(node) for node in self.nodes.values()]
        while not what():
            for client in clients:
                client.stats()
            self.assertLess(time.monotonic(), end, said + "\n" + "\n".join(node.text() for node in self.nodes.values()))

    def until_logged(self, i, pattern):
        self.until(lambda: re.search(pattern, self.nodes[i].text()), f"{i}: {pattern}")

    def until_all_hear_all(self):
        """And are heard by all: a round trip is known only where both directions pass."""
        self.until(lambda: all(self.metric(i, f'tallyd_peer_{what}{{peer="{other}"}}') for i in self.nodes
                               for j, other in enumerate(self.entries) if j != i for what in ("up", "round_trip_seconds")), "all hear all")

    def metrics(self, i):
        text = urllib.request.urlopen(f"http://{self.nodes[i].http()}/metrics", timeout=WAIT_S).read().decode()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))}

    def metric(self, i, name):
        return self.metrics(i).get(name, 0.0)

    def share(self, key, nodes=(0, 1, 2)):
        """A strict limit of five over these: never more; and no less for one of several keys, as a key that changes its owner may lose what
        that one held (each request is then waited for in vain). Returns the key."""
        clients = [Plain(self.nodes[i]) for i in nodes]
        end = time.monotonic() + WAIT_S
        for attempt in itertools.count():
            name = f"{key}-{attempt}"
            replies = [client.ask("TALLY.TAKE", "login", name)[0] for client in clients * (12 // len(clients))]
            self.assertLessEqual(replies.count(0), 5, (name, replies))
            if replies.count(0) == 5:
                return name
            self.assertLess(time.monotonic(), end, (name, replies))

    def end_all(self):
        self.assertEqual([node.end() for node in self.nodes.values()], [0] * len(self.nodes))

    def test_names_that_nobody_knows_at_the_start_are_found_later(self):
        for i, home in enumerate(HOMES):
            self.node(i, f"{home}:{PORT}")
        for i in range(3):
            self.nodes[i].ready()
            self.assertEqual(self.metric(i, f'tallyd_peer_addresses{{peer="{self.entries[i - 1]}"}}'), 0)
        self.assertEqual(Plain(self.nodes[0]).ask("TALLY.TAKE", "api", "bob")[0], 0)  # its floor
        for name, home in zip(NAMES, HOMES):
            self.server.say(name, A=[home])
        self.until_all_hear_all()
        self.share("bob")
        text = self.nodes[0].text()
        for entry, home in zip(self.entries[1:], HOMES[1:]):
            self.assertEqual(len(re.findall(rf"peer's name is not found: .* peer={entry} error=\"Domain name not found\"", text)), 1, text)
            self.assertEqual(len(re.findall(rf"peer is found peer={entry} at={home}:{PORT}", text)), 1, text)
            self.assertEqual(self.metric(0, f'tallyd_peer_addresses{{peer="{entry}"}}'), 1)
        self.assertGreater(self.metric(0, 'tallyd_peer_lookups_total{outcome="failed"}'), 0)
        self.assertGreater(self.metric(0, 'tallyd_peer_lookups_total{outcome="found"}'), 0)
        self.end_all()

    def test_a_node_that_moves_is_found_at_its_new_address_and_is_no_clone_of_itself(self):
        self.at_home()
        self.share("bob")
        self.nodes.pop(0).end(signal.SIGKILL)
        self.node(0, f"127.0.0.3:{PORT}")
        # Its new life speaks before its name has followed, and while the last one still counts as up.
        self.until(lambda: self.metric(1, 'tallyd_sync_dropped_total{reason="wrong_source"}') > 0, "from elsewhere")
        self.server.say(NAMES[0], A=["127.0.0.3"])
        for i in (1, 2):
            self.until_logged(i, rf"peer has moved peer={self.entries[0]} from={HOMES[0]}:{PORT} to=127.0.0.3:{PORT}")
        self.until_all_hear_all()
        self.nodes[0].ready()
        self.share("eve")
        self.assertNotIn("another node with this entry lives", self.nodes[0].text())
        self.end_all()

    def test_a_guest_finds_aggregators_by_name_and_follows_one_that_moves(self):
        self.list = "aggregators"
        self.at_home()
        self.node(3, "127.0.0.50:0").ready()
        for key in ("bob", "eve", "joe"):
            self.share(key, nodes=(3,))
        self.nodes.pop(0).end(signal.SIGKILL)
        self.server.say(NAMES[0], A=["127.0.0.3"])
        self.node(0, f"127.0.0.3:{PORT}").ready()
        self.until_logged(3, rf"peer has moved peer={self.entries[0]} from={HOMES[0]}:{PORT} to=127.0.0.3:{PORT}")
        self.until(lambda: self.metric(3, f'tallyd_peer_up{{peer="{self.entries[0]}"}}') == self.metric(0, "tallyd_guests") == 1, "the guest is known there")
        for key in ("mia", "ben", "zoe", "kim", "tom", "ann"):  # some are its own
            self.share(key, nodes=(3,))
        self.end_all()

    def test_of_several_addresses_the_one_that_answers_is_used_and_what_cannot_be_reached_is_said(self):
        self.server.say(NAMES[0], CNAME=["host.tally.test"])
        self.server.say("host.tally.test", A=["127.0.0.99", "127.0.0.98", HOMES[0]], AAAA=["::1"])  # two of them are nobody's
        for i in (1, 2):
            self.server.say(NAMES[i], A=[HOMES[i]])
        for i, home in enumerate(HOMES):
            self.node(i, f"{home}:{PORT}")
        self.until_all_hear_all()
        for i in range(3):
            self.nodes[i].ready()
        for key in ("bob", "eve", "joe", "mia"):
            self.share(key)
        self.assertEqual(self.metric(1, f'tallyd_peer_addresses{{peer="{self.entries[0]}"}}'), 3)
        self.assertEqual(len(re.findall(rf'is not used: cluster.bind is of another family.* peer={self.entries[0]} address=\[::1\]:{PORT}',
                                        self.nodes[1].text())), 1)
        self.end_all()

    def test_srv_records_say_where_a_member_is(self):
        self.entries = [f"_tally._udp.{name}" for name in NAMES]
        ports = [8401, 8402, 8403]
        for i, (entry, port) in enumerate(zip(self.entries, ports)):
            self.server.say(entry, SRV=[(20, 1, 8499, f"host-{i}.tally.test"), (10, 1, port, f"host-{i}.tally.test"), (0, 0, 8499, "gone.tally.test")])
            self.server.say(f"host-{i}.tally.test", A=["127.0.0.1"], AAAA=["::1"] if i == 2 else [])
        for i, port in enumerate(ports):
            self.node(i, f"127.0.0.1:{port}")
        # All three name a second place at the same port: it is one node's, the others are told.
        self.until_logged(0, r"it is another peer's; each entry must mean a node of its own peer=\S+ address=127.0.0.1:8499 of=_tally")
        self.until_all_hear_all()
        for i in range(3):
            self.nodes[i].ready()
        self.share("bob")
        self.end_all()

    def test_bound_to_all_addresses_nodes_find_each_other_in_both_families(self):
        path = self.folder / "secret"
        self.assertEqual(run(PROGRAMS["tally"], "secret", path).returncode, 0)
        self.secret = {"secret_file": str(path)}
        self.entries = [f"{letter}:{8381 + i}" for i, letter in enumerate("abc")]  # by the search list
        self.server.say(NAMES[0], A=["127.0.0.1"])
        self.server.say(NAMES[1], A=["127.0.0.1"], AAAA=["::1"])
        self.server.say(NAMES[2], AAAA=["::1"])
        self.node(0, "0.0.0.0:8381")
        self.node(1, "[::]:8382")
        self.node(2, "[::]:8383")
        self.until(lambda: all(self.metric(i, f'tallyd_peer_up{{peer="{self.entries[j]}"}}') for i, j in ((0, 1), (1, 0), (1, 2), (2, 1))), "both families")
        self.until_logged(0, rf"cluster.bind is of another family.* peer={self.entries[2]} address=\[::1\]:8383")
        self.assertIn("bind=[::]:8382", self.nodes[1].text())
        self.server.say(NAMES[2], A=["127.0.0.1"], AAAA=["::1"])
        self.until_all_hear_all()
        for i in range(3):
            self.nodes[i].ready()
        self.share("bob")
        self.end_all()

    def test_without_a_secret_an_address_beyond_loopback_is_not_used(self):
        self.entries[2] = f"by-hosts-file:{PORT}"
        for name, address in zip(NAMES, [HOMES[0], "192.0.2.7"]):
            self.server.say(name, A=[address])
        self.node(0, f"{HOMES[0]}:{PORT}").ready()
        self.until_logged(0, rf"it is not on loopback, and there is no cluster.secret_file peer={self.entries[1]} address=192.0.2.7:{PORT}")
        self.assertEqual(self.metric(0, f'tallyd_peer_addresses{{peer="{self.entries[1]}"}}'), 0)
        self.until_logged(0, rf"peer is found peer={self.entries[2]} at=127.0.0.77:{PORT}")
        self.assertEqual(self.metric(0, f'tallyd_peer_addresses{{peer="{self.entries[2]}"}}'), 1)
        self.end_all()

    def test_another_name_server_is_asked_as_soon_as_resolv_conf_names_it(self):
        self.addCleanup(name_server.use_servers, "127.0.0.1")
        name_server.use_servers("127.0.0.66")  # nobody is there
        for name, home in zip(NAMES, HOMES):
            self.server.say(name, A=[home])
        self.node(0, f"{HOMES[0]}:{PORT}").ready()
        self.until_logged(0, rf"peer's name is not found: .* peer={self.entries[1]} error=\"Could not contact DNS servers\"")
        name_server.use_servers("127.0.0.1")
        self.until_logged(0, rf"peer is found peer={self.entries[1]} at={HOMES[1]}:{PORT}")
        self.end_all()

    def test_the_example_for_kubernetes_is_a_configuration(self):
        text = (pathlib.Path(__file__).resolve().parent.parent / "conf" / "kubernetes.yaml").read_text()
        secret = self.folder / "secret"
        self.assertEqual(run(PROGRAMS["tally"], "secret", secret).returncode, 0)
        config = re.search(r"tallyd\.json: \|\n(.*?)\n---", text, re.DOTALL).group(1).replace("/etc/tallyd-secret/tallyd.secret", str(secret))
        words = json.loads(re.search(r"args: (\[.*\])", text).group(1).replace("$(POD_NAME)", "tally-1"))
        self.assertEqual(words[0], "-c")
        done = run(PROGRAMS["tallyd"], "-c", self.write(config), *words[2:], "--check")
        self.assertEqual(done.returncode, 0, done)
        self.assertRegex(done.stderr, r"\A[^\n]*listen\.http\[0\]: HTTP has no passwords [^\n]*\n\Z")  # of which the file says what to do

    def test_a_silent_name_server_stops_nobody(self):
        self.server.mute(True)
        node = self.node(0, f"{HOMES[0]}:{PORT}").ready()
        client = Plain(node)
        # The cluster thread answers all the time, while lookups wait and until they have been given up.
        self.until_logged(0, rf"peer's name is not found: .* peer={self.entries[1]} error=\"Timeout while contacting DNS servers\"")
        self.assertEqual(client.ask("TALLY.TAKE", "api", "bob")[0], 0)
        self.server.mute(False)
        for name, home in zip(NAMES, HOMES):
            self.server.say(name, A=[home])
        for i in (1, 2):
            self.node(i, f"{HOMES[i]}:{PORT}")
        self.until_all_hear_all()
        for i in (1, 2):
            self.nodes[i].ready()
        bob = self.share("bob")
        # Silent again: where everybody is goes on being used. A node that is away is looked for often.
        self.server.mute(True)
        self.nodes.pop(2).end(signal.SIGKILL)
        self.until_logged(0, rf"peer's name is not found any more: its last addresses go on being used peer={self.entries[2]}")
        self.assertEqual(Plain(self.nodes[1]).ask("TALLY.TAKE", "login", bob)[0], 1)
        self.share("eve", nodes=(0, 1))
        self.server.mute(False)
        self.node(2, f"{HOMES[2]}:{PORT}").ready()
        self.until_logged(0, rf"peer is found again peer={self.entries[2]} at={HOMES[2]}:{PORT}")
        self.until_all_hear_all()
        self.assertEqual(Plain(self.nodes[0]).ask("TALLY.TAKE", "login", bob)[0], 1)
        told = self.metrics(0)
        ticks = told["tallyd_sync_tick_lag_seconds_count"]
        self.assertGreater(ticks, 0)
        # A lookup waits for two seconds and more.
        self.assertEqual(told['tallyd_sync_tick_lag_seconds_bucket{le="1.048576"}'], ticks)
        self.end_all()


if __name__ == "__main__":
    why_not = name_server.enter()
    if why_not:
        print(f"skipped: no network and no /etc of the test's own: {why_not}", file=sys.stderr)
        sys.exit(SKIPPED)
    processes.main(sys.argv)
