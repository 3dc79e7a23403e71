#!/usr/bin/env python3
"""A fleet whose entries are IPv6 addresses that are not on loopback, each host a network namespace: field_ipv6_process_test.py TALLYD TALLY [TEST...]

Needs root and TUN; says so and is skipped (exit 77) elsewhere.
"""
import re
import sys
import time

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from namespaces import need_network  # noqa: E402
from network import Network  # noqa: E402
from processes import DAY, PROGRAMS, WAIT_S, Case, Plain, run  # noqa: E402

HOSTS = ["n0", "n1", "n2"]
RULES = [{"name": "login", "limit": 5, "window": DAY, "algorithm": "fixed_window", "max_overcount": 0, "wait": "10s", "on_isolation": "closed"}]


class Ipv6(Case):
    def setUp(self):
        super().setUp()
        self.network = Network(HOSTS)
        self.addCleanup(self.network.close)
        self.peers = [f"[{self.network.hosts[name].ipv6}]:8381" for name in HOSTS]

    def config(self, name, **more):
        return self.write({"node": {"state_dir": str(self.folder / "tallyd")}, "table": {"keys": 4096}, "workers": 1, "rules": RULES,
                           "cluster": {"bind": self.peers[HOSTS.index(name)], "peers": self.peers, "sync_interval": "20ms", "isolation_after": "1h", **more}},
                          f"{name}.json")

    def node(self, name):
        return self.start("-c", self.config(name, secret_file=str(self.folder / "secret")), name=name, inside=self.network.words(name, []))

    def test_three_daemons_share_a_limit_and_go_on_when_one_of_them_is_cut_off(self):
        self.assertEqual(run(PROGRAMS["tally"], "secret", self.folder / "secret").returncode, 0)
        nodes = [self.node(name).ready() for name in HOSTS]
        clients = [Plain(node) for node in nodes]
        replies = [client.ask("TALLY.TAKE", "login", "bob")[0] for client in clients * 5]
        self.assertEqual(replies.count(0), 5, replies)
        told = clients[0].ask("TALLY.EXPLAIN", "login", "bob")
        self.assertIn(told[told.index(b"owner") + 1].decode(), self.peers)
        self.assertEqual({name.decode() for name in clients[1].ask("TALLY.PEERS")[::2]}, set(self.peers))

        self.network.split("n2", "n0,n1")
        for key in ("eve", "joe", "mia", "ben"):  # some are n2's own, and taken over
            end, admitted = time.monotonic() + WAIT_S, 0
            while admitted < 5:
                self.assertLess(time.monotonic(), end, key)
                admitted += sum(client.ask("TALLY.TAKE", "login", key)[0] == 0 for client in clients[:2])
        self.network.join("*", "*")
        end, reply = time.monotonic() + WAIT_S, None
        while reply != 1:  # over the limit, says the owner, who can be asked again
            self.assertLess(time.monotonic(), end)
            limited, *_, reply = clients[2].ask("TALLY.TAKE", "login", "eve")
            self.assertEqual(limited, 1)
        self.assertEqual([node.end() for node in nodes], [0, 0, 0])

    def test_without_a_secret_such_addresses_are_refused_with_their_place(self):
        node = self.start("-c", self.config("n0"), name="n0", inside=self.network.words("n0", []))
        self.assertEqual(node.ended(), 78)
        self.assertRegex(node.text(), re.escape(self.peers[0]) + r'" is not a loopback address, so the nodes need a secret')


if __name__ == "__main__":
    need_network(ipv6=True)
    processes.main(sys.argv)
