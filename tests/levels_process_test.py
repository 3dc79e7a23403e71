#!/usr/bin/env python3
"""Fleets in levels: levels_process_test.py TALLYD TALLY [TEST...]

Hosts that are in no list, as lessees of aggregators; and regions, whose aggregators draw from a level above.
"""
import signal
import sys
import time
import urllib.request

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from processes import DAY, PROGRAMS, WAIT_S, Case, Daemon, Plain, free_ports, run  # noqa: E402

STRICT = {"algorithm": "fixed_window", "window": DAY, "max_overcount": 0, "on_isolation": "closed"}
RULES = [{"name": "login", "limit": 5, "wait": "10s", **STRICT},
         {"name": "api", "limit": 300, "wait": "1s", **STRICT},
         {"name": "soon", "limit": 50, "wait": "50ms", **STRICT},
         {"name": "feed", "algorithm": "token_bucket", "rate": "1/h", "burst": 40, "max_overcount": 0, "on_isolation": "closed", "wait": "1s"}]


class Levels(Case):
    def addresses(self, n):
        return [f"127.0.0.1:{port}" for port in free_ports(n)]

    def config(self, name, bind, **cluster):
        return self.write({"node": {"state_dir": str(self.folder / f"state-{name}")}, "table": {"keys": 4096}, "workers": 1, "rules": RULES,
                           "listen": {"http": ["127.0.0.1:0"]},
                           "cluster": {"bind": bind, "sync_interval": "20ms", "isolation_after": "1s", **cluster}}, f"{name}.json")

    def node(self, name, bind, **cluster):
        return self.start("-c", self.config(name, bind, **cluster), name=name)

    def guest(self, name, aggregators, **cluster):
        return self.node(name, "127.0.0.1:0", aggregators=aggregators, **cluster)

    def take(self, node, rule, key="bob"):
        return Plain(node).ask("TALLY.TAKE", rule, key)

    def admitted(self, nodes, rule, key, tries):
        clients = [Plain(node) for node in nodes]
        return sum(clients[i % len(clients)].ask("TALLY.TAKE", rule, key)[0] == 0 for i in range(tries))

    def used_up(self, nodes, rule, key, most):
        """Takes until nothing is left, or more than `most` are admitted. The last denial waits as long as the rule says."""
        clients, taken = [Plain(node) for node in nodes], 0
        while taken <= most and clients[taken % len(clients)].ask("TALLY.TAKE", rule, key)[0] == 0:
            taken += 1
        return taken

    def until_taken(self, node, rule, key="bob"):
        """On a busy machine a grant may come later than a rule waits."""
        end = time.monotonic() + WAIT_S
        while (reply := self.take(node, rule, key))[0] != 0:
            self.assertLess(time.monotonic(), end, f"{reply}\n{node.text()}")

    def until_denied(self, node, rule, key, reason):
        end = time.monotonic() + WAIT_S
        while (reply := self.take(node, rule, key))[5] != reason:
            self.assertLess(time.monotonic(), end, f"{reply}\n{node.text()}")

    def metric(self, node, name):
        text = urllib.request.urlopen(f"http://{node.http()}/metrics", timeout=WAIT_S).read().decode()
        return next(float(line.split()[-1]) for line in text.splitlines() if line.rsplit(" ", 1)[0] == name)

    def explained(self, node, rule, key):
        flat = Plain(node).ask("TALLY.EXPLAIN", rule, key)
        return dict(zip([name.decode() for name in flat[::2]], flat[1::2]))


class Guests(Levels):
    def setUp(self):
        super().setUp()
        self.addresses_ = self.addresses(3)
        self.aggregators = [self.node(f"a{i}", address, aggregators=self.addresses_) for i, address in enumerate(self.addresses_)]

    def some(self, n, first=0):
        guests = [self.guest(f"g{first + i}", self.addresses_) for i in range(n)]
        return [guest.ready() for guest in guests]

    def test_two_of_four_use_the_whole_limit_and_none_keeps_state(self):
        guests = self.some(4)
        self.assertEqual(self.admitted(guests, "login", "bob", 12), 5)
        self.assertEqual(self.used_up(guests[:2], "api", "bob", 300), 300)
        self.assertEqual(self.used_up(guests[2:], "api", "bob", 300), 0)
        self.assertFalse((self.folder / "state-g0").exists())
        self.assertTrue((self.folder / "state-a0").exists())
        self.assertEqual([node.end() for node in guests + self.aggregators], [0] * 7)

    def test_they_come_and_go(self):
        taken = 0
        for life in range(6):
            guest = self.some(1, life)[0]
            taken += self.admitted([guest], "api", "bob", 20)
            guest.end(signal.SIGKILL if life % 2 else signal.SIGTERM)
        last = self.some(1, 6)[0]
        self.assertEqual(taken, 120)
        taken += self.used_up([last], "api", "bob", 300)
        self.assertLessEqual(taken, 300)
        self.assertGreater(taken, 200)  # what those held that were killed is lost to the window

    def test_an_aggregator_dies_and_they_go_on_and_all_die_and_they_say_so(self):
        guest = self.some(1)[0]
        for i in range(30):  # keys of all three
            self.until_taken(guest, "soon", f"key-{i}")
        self.aggregators[0].end(signal.SIGKILL)
        for i in range(30):
            self.until_taken(guest, "soon", f"key-{i}")
        for node in self.aggregators[1:]:
            node.end(signal.SIGKILL)
        self.until_denied(guest, "soon", "new", 3)
        self.assertEqual(self.explained(guest, "soon", "new")["isolated"], 1)
        self.assertGreaterEqual(self.metric(guest, 'tallyd_isolated_decisions_total{rule="soon",policy="closed"}'), 1)
        again = [self.node(f"a{i}", address, aggregators=self.addresses_) for i, address in enumerate(self.addresses_)]
        for node in again:
            node.ready()
        self.until_taken(guest, "soon", "new")

    def test_a_reset_at_one_is_heard_at_the_others(self):
        guests = self.some(2)
        self.assertEqual(self.admitted(guests, "login", "bob", 8), 5)
        self.assertEqual(Plain(guests[0]).ask("TALLY.RESET", "login", "bob"), "OK")
        for _ in range(2):
            self.until_taken(guests[1], "login")

    def test_operators_see_who_is_there(self):
        guests = self.some(2)
        self.until_taken(guests[0], "login")
        table = run(PROGRAMS["tally"], "-s", guests[0].socket, "peers").stdout
        self.assertEqual([line.split()[1] for line in table.splitlines()], ["role", *["aggregator"] * 3, "guest"])
        self.aggregators[0].ready()
        table = run(PROGRAMS["tally"], "-s", self.aggregators[0].socket, "peers").stdout
        self.assertEqual([line.split()[1] for line in table.splitlines()], ["role", *["aggregator"] * 3, *["guest"] * 2])
        self.assertEqual(self.metric(self.aggregators[0], "tallyd_guests"), 2)
        self.assertIn("a guest of the aggregators", guests[0].text())

    def test_a_single_aggregator_serves_guests(self):
        alone = self.addresses(1)
        aggregator = self.node("alone", alone[0], aggregators=alone).ready()
        guests = [self.guest(f"x{i}", alone).ready() for i in range(2)]
        self.assertEqual(self.admitted(guests, "login", "bob", 9), 5)
        self.assertIn("one alone", aggregator.text())

    def test_a_guest_goes_to_other_aggregators_by_reload(self):
        fleets = [self.addresses(1), self.addresses(1)]
        for i, addresses in enumerate(fleets):
            self.node(f"alone-{i}", addresses[0], aggregators=addresses).ready()
        guest = self.guest("mover", fleets[0]).ready()
        client = Plain(guest)
        for addresses in (fleets[1], fleets[0]):
            self.assertEqual(sum(client.ask("TALLY.TAKE", "soon", "bob")[0] == 0 for _ in range(30)), 30)
            self.config("mover", "127.0.0.1:0", aggregators=addresses)
            self.assertEqual(run(PROGRAMS["tally"], "-s", guest.socket, "reload").returncode, 0)
            guest.ready()
        self.assertEqual(sum(client.ask("TALLY.TAKE", "soon", "bob")[0] == 0 for _ in range(30)), 20)  # of 50, where 30 were taken before


class Regions(Levels):
    def setUp(self):
        super().setUp()
        self.world = self.addresses(3)
        self.above = [self.node(f"w{i}", address, aggregators=self.world) for i, address in enumerate(self.world)]
        self.aggregators, self.hosts = [], []
        for region in range(2):
            own = self.addresses(3)
            self.aggregators.append([self.node(f"r{region}a{i}", address, aggregators=own, upstream={"aggregators": self.world})
                                     for i, address in enumerate(own)])
            self.hosts.append([self.guest(f"r{region}h{i}", own) for i in range(2)])
        for node in [*self.above, *sum(self.aggregators, []), *sum(self.hosts, [])]:
            node.ready()

    def test_all_regions_share_a_limit_and_one_may_use_all_of_it(self):
        mixed = [host for pair in zip(*self.hosts) for host in pair]
        self.assertEqual(self.admitted(mixed, "login", "bob", 12), 5)
        self.assertEqual(self.used_up(self.hosts[1][:1], "api", "bob", 300), 300)
        self.assertEqual(self.used_up(self.hosts[0], "api", "bob", 300), 0)
        tokens = self.used_up(mixed, "feed", "bob", 41)
        self.assertTrue(30 <= tokens <= 41, tokens)  # one may have come back; a part may stay leased where it is not asked for
        table = run(PROGRAMS["tally"], "-s", self.aggregators[0][0].socket, "peers").stdout
        self.assertEqual([line.split()[1] for line in table.splitlines()], ["role", *["aggregator"] * 3, *["guest"] * 2, *["above"] * 3])
        self.assertEqual(self.metric(self.above[0], "tallyd_guests"), 6)
        everybody = [*sum(self.hosts, []), *sum(self.aggregators, []), *self.above]
        self.assertEqual([node.end() for node in everybody], [0] * len(everybody))

    def test_aggregators_of_both_levels_die_and_their_hosts_go_on(self):
        for i in range(10):
            self.until_taken(self.hosts[0][0], "soon", f"key-{i}")
        self.aggregators[0][1].end(signal.SIGKILL)
        self.above[2].end(signal.SIGKILL)
        for region in range(2):
            for i in range(10):
                self.until_taken(self.hosts[region][1], "soon", f"key-{i}")

    def test_a_region_that_is_cut_off_says_so_and_comes_back(self):
        host = self.hosts[0][0]
        self.until_taken(host, "soon", "known")
        for node in self.above:
            node.process.send_signal(signal.SIGSTOP)
        self.until_denied(host, "soon", "new", 3)
        self.assertEqual(self.explained(host, "soon", "new")["isolated"], 1)
        for node in self.above:
            node.process.send_signal(signal.SIGCONT)
        self.until_taken(host, "soon", "new")


if __name__ == "__main__":
    processes.main(sys.argv)
