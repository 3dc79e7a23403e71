#!/usr/bin/env python3
"""A node written from docs/protocol.md in a fleet with real tallyds: protocol_process_test.py TALLYD TALLY [TEST...]"""
import pathlib
import sys
import time
import urllib.request

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from processes import DAY, PROGRAMS, WAIT_S, Case, Plain, free_ports, run  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "protocol"))
import hashes  # noqa: E402
from node import Node  # noqa: E402
from owner import Owner  # noqa: E402
from seal import read_secret  # noqa: E402
from wire import Entry  # noqa: E402

DAY_NS = 366 * 86_400 * 10**9
LIMIT = 5
RULES = [{"name": "login", "limit": LIMIT, "window": DAY, "algorithm": "fixed_window", "max_overcount": 0, "wait": "10s",
          "on_isolation": "closed"}]
FINGERPRINT = hashes.fingerprint_of_rules([("login", 1, LIMIT, DAY_NS, 0, 0, 0), ("(inline)", 0, 1, 0, 0, 50_000, 0)])


def window_now():
    return time.time_ns() // DAY_NS


class Protocol(Case):
    """A fleet of two: a tallyd, and a node of this test."""

    def fleet(self, **more):
        secret = None
        if self.sealed:
            self.assertEqual(run(PROGRAMS["tally"], "secret", self.folder / "secret").returncode, 0)
            secret = read_secret((self.folder / "secret").read_text())
        self.node = Node(secret=secret)
        self.addCleanup(self.node.stop)
        self.peer = f"127.0.0.1:{free_ports(1)[0]}"
        self.node.join([self.peer, self.node.entry])
        self.node.rules = FINGERPRINT
        self.config = self.write({"node": {"state_dir": str(self.folder / "tallyd")}, "table": {"keys": 4096}, "workers": 1,
                                  "listen": {"http": ["127.0.0.1:0"]}, "rules": RULES,
                                  "cluster": {"bind": self.peer, "peers": [self.node.entry, self.peer], "sync_interval": "20ms",
                                              "isolation_after": "1h", **({"secret_file": str(self.folder / "secret")} if secret else {})}, **more})
        self.node.start()
        self.daemon = self.start("-c", self.config, name="n")
        return self.daemon.ready()

    sealed = False

    def metrics(self):
        text = urllib.request.urlopen(f"http://{self.daemon.http()}/metrics", timeout=WAIT_S).read().decode()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}

    def dropped(self):
        return {name.split('"')[1]: value for name, value in self.metrics().items() if name.startswith("tallyd_sync_dropped_total")}

    def take(self, key, client=None):
        """limited, limit, remaining, retry, reset, reason"""
        return (client or Plain(self.daemon)).ask("TALLY.TAKE", "login", key)

    def until(self, what, said):
        end = time.monotonic() + WAIT_S
        while not what():
            self.assertLess(time.monotonic(), end, said)

    def place(self, key):
        return hashes.key_id("login", key, self.node.key), window_now()

    def report(self, key, wanted, **more):
        id_, window = self.place(key)
        return Entry("report", **{"key": id_, "rule": hashes.rule_number("login"), "limit": LIMIT, "length": DAY_NS, "window": window, "line": 1,
                                  "wanted": wanted, "waiting": wanted, "waiting_min": 1, "algorithm": 1, "stamp": time.monotonic_ns(), **more})

    def test_a_start_is_hello_and_answer_and_both_know_each_other(self):
        self.fleet()
        hello = self.node.hear("hello", answer=0)
        self.assertEqual(hello.rules, FINGERPRINT)
        self.node.send(self.peer, Entry("hello", rules=FINGERPRINT))
        answer = self.node.hear("hello", answer=1)
        self.assertEqual((answer.life, answer.rules, answer.remembered), (self.node.incarnation, FINGERPRINT, 0))
        self.until(lambda: self.metrics()[f'tallyd_peer_up{{peer="{self.node.entry}"}}'] == 1, "the node is not up")
        self.assertEqual(self.metrics()[f'tallyd_peer_rules_mismatch{{peer="{self.node.entry}"}}'], 0)
        self.assertEqual((self.dropped(), self.node.refused), ({}, []))

    def test_a_request_is_admitted_because_the_node_granted_it_and_denied_when_it_said_exhausted(self):
        self.fleet()
        owner = Owner(self.node, LIMIT)
        key = self.node.key_owned_by("login", self.node.entry)
        place = self.place(key)
        client = Plain(self.daemon)
        self.assertEqual([self.take(key, client)[0] for _ in range(LIMIT)], [0] * LIMIT)
        report = self.node.said("report")[0]
        self.assertEqual((report.key, report.window, report.rule, report.limit, report.length, report.algorithm),
                         (*place, hashes.rule_number("login"), LIMIT, DAY_NS, 1))
        self.node.wait_for(lambda: owner.used(place) == LIMIT, "not told what was used")
        self.node.wait_for(lambda: owner.accepted[place] == LIMIT, "the mark was not accepted")
        denied = self.take(key, client)
        self.assertEqual((denied[0], denied[5]), (1, 1))  # limited, over the limit
        self.assertEqual((self.dropped(), self.node.refused), ({}, []))

    def test_the_node_is_granted_what_it_asks_for_once_it_has_accepted_the_mark_and_the_rest_is_the_daemons(self):
        self.fleet()
        key = self.node.key_owned_by("login", self.peer)
        id_, window = self.place(key)
        self.node.member.silent = True
        self.node.send(self.peer, self.report(key, 3))
        mark = self.node.hear("mark", key=id_, window=window, claim=0)
        self.assertEqual((mark.ballot, mark.length, mark.mark >= 3), ((0, self.node.ids[self.peer]), DAY_NS, True))
        self.assertEqual(self.node.hear("grant", key=id_).granted, 0)  # one of two is no majority
        self.node.member.silent = False
        self.node.send(self.peer, self.report(key, 3))
        grant = self.node.hear("grant", key=id_, granted=3)
        self.assertEqual((grant.window, grant.ballot, grant.line, grant.incarnation, grant.backed),
                         (window, (0, self.node.ids[self.peer]), 1, self.node.incarnation, 1))
        spent = self.report(key, 3, ballot=grant.ballot, has_ballot=1, used=3, ceiling=3, granted_heard=3, waiting=0, waiting_min=0)
        self.node.send(self.peer, spent)
        self.node.hear("grant", key=id_, stamp=spent.stamp)
        replies = [self.take(key)[0] for _ in range(3)]
        self.assertEqual(replies, [0, 0, 1])
        self.assertEqual((self.dropped(), self.node.refused), ({}, []))


class Sealed(Protocol):
    sealed = True


if __name__ == "__main__":
    processes.main(sys.argv)
