#!/usr/bin/env python3
"""Orders of single keys on real daemons: orders_process_test.py TALLYD TALLY [TEST...]

Block, allow, limit and lift, on one daemon and on three; through restarts; by the tool.
"""
import signal
import sys
import time

sys.dont_write_bytecode = True  # the sources' folder stays as it is
from processes import DAY, PROGRAMS, WAIT_S, Case, Plain, free_ports, main, run  # noqa: E402

RULES = [{"name": "api", "limit": 5, "window": DAY, "algorithm": "fixed_window", "max_overcount": 0, "wait": "10s", "on_isolation": "closed"},
         {"name": "feed", "algorithm": "token_bucket", "rate": "1/d", "burst": 3}]
HOUR_MS = "3600000"
BLOCKED, EXEMPT = 5, 6


class Orders(Case):
    def until(self, what):
        """Asks again until it is so: an order is with the workers a moment after it was answered."""
        end = time.monotonic() + WAIT_S
        while not what():
            self.assertLess(time.monotonic(), end)

    def blocked(self, client, key="bob", rule="api"):
        return client.ask("TALLY.PEEK", rule, key)[5] == BLOCKED

    def tally(self, daemon, *words, code=0):
        done = run(PROGRAMS["tally"], "-s", daemon.socket, *words, folder=self.folder)
        self.assertEqual(code, done.returncode, done.stdout + done.stderr)
        return done.stdout + done.stderr


class Alone(Orders):
    def setUp(self):
        super().setUp()
        self.config = self.small(rules=RULES)

    def node(self):
        return self.start("-c", self.config, name="n").ready()

    def test_a_blocked_key_is_refused_with_its_end_and_others_are_not(self):
        client = Plain(self.node())
        self.assertEqual(client.ask("TALLY.BLOCK", "api", "bob", HOUR_MS), "OK")
        self.until(lambda: self.blocked(client))
        limited, limit, remaining, retry_ms, reset_ms, reason = client.ask("TALLY.TAKE", "api", "bob")
        self.assertEqual((limited, limit, remaining, reason), (1, 0, 0, BLOCKED))
        self.assertTrue(0 < retry_ms <= int(HOUR_MS) and retry_ms == reset_ms, (retry_ms, reset_ms))
        self.assertEqual(client.ask("TALLY.TAKE", "api", "eve")[0], 0)
        self.assertEqual(client.ask("TALLY.TAKE", "feed", "bob")[0], 0)
        told = client.ask("TALLY.EXPLAIN", "api", "bob")
        told = dict(zip(told[::2], told[1::2]))
        self.assertRegex(told[b"order"].decode(), r"^block, for \d+ ms more$")
        self.assertRegex(told[b"reason"].decode(), r"^blocked by an order$")

    def test_an_allowed_key_is_admitted_and_not_counted(self):
        client = Plain(self.node())
        self.assertEqual(client.ask("TALLY.ALLOW", "api", "bob", HOUR_MS), "OK")
        self.until(lambda: client.ask("TALLY.PEEK", "api", "bob")[5] == EXEMPT)
        for _ in range(20):
            self.assertEqual(client.ask("TALLY.TAKE", "api", "bob"), [0, 5, 5, -1, 0, EXEMPT])
        self.assertEqual(client.ask("TALLY.LIFT", "api", "bob"), 1)
        self.until(lambda: client.ask("TALLY.PEEK", "api", "bob")[5] == 0)
        self.assertEqual(client.ask("TALLY.PEEK", "api", "bob")[2], 5)

    def test_another_limit_holds_for_windows_and_buckets_up_and_down(self):
        client = Plain(self.node())
        for rule, n in (("api", 8), ("feed", 2)):
            self.assertEqual(client.ask("TALLY.LIMIT", rule, "bob", str(n), HOUR_MS), "OK")
            self.until(lambda: client.ask("TALLY.PEEK", rule, "bob")[1] == n)
            self.assertEqual([client.ask("TALLY.TAKE", rule, "bob")[0] for _ in range(10)], [0] * n + [1] * (10 - n))
            self.assertEqual(client.ask("TALLY.TAKE", rule, "eve")[1], {"api": 5, "feed": 3}[rule])

    def test_limits_that_come_with_calls_are_blocked_and_allowed_too(self):
        client = Plain(self.node())
        self.assertEqual(client.ask("TALLY.BLOCK", "(inline)", "bob", HOUR_MS), "OK")
        self.assertEqual(client.ask("TALLY.ALLOW", "(inline)", "eve", HOUR_MS), "OK")
        throttle = lambda key: client.ask("CL.THROTTLE", key, "0", "1", "86400")  # noqa: E731
        self.until(lambda: throttle("bob")[0] == 1 and throttle("bob")[3] > 0 and self.listed(client, 2))
        self.until(lambda: throttle("eve")[0] == 0 and throttle("eve")[0] == 0)
        self.assertEqual([throttle("eve")[0] for _ in range(5)], [0] * 5)
        self.assertTrue(str(client.ask("TALLY.LIMIT", "(inline)", "bob", "1", HOUR_MS)).startswith("NORULE"))

    def listed(self, client, n):
        return len(client.ask("TALLY.BLOCKS")) == n

    def test_an_order_ends_by_itself(self):
        client = Plain(self.node())
        self.assertEqual(client.ask("TALLY.BLOCK", "api", "bob", "300"), "OK")
        self.until(lambda: not self.blocked(client) and self.listed(client, 0))

    def test_orders_outlive_a_restart_in_order_and_a_kill(self):
        node = self.node()
        client = Plain(node)
        self.assertEqual(client.ask("TALLY.BLOCK", "api", "bob", HOUR_MS), "OK")
        self.assertEqual(node.end(), 0)
        node = self.node()
        client = Plain(node)
        self.until(lambda: self.blocked(client))
        orders = self.folder / "tallyd" / "n.state.orders"
        before = orders.read_bytes()
        self.assertEqual(client.ask("TALLY.LIFT", "api", "bob"), 1)
        self.until(lambda: orders.read_bytes() != before)
        node.end(signal.SIGKILL)
        client = Plain(self.node())
        self.assertTrue(self.listed(client, 0))
        self.assertFalse(self.blocked(client))

    def test_a_file_that_is_damaged_is_said_and_passed_over(self):
        (self.folder / "tallyd").mkdir()
        (self.folder / "tallyd" / "n.state.orders").write_bytes(b"something else")
        node = self.node()
        self.assertIn("what was ordered of keys cannot be read", node.text())
        self.assertTrue(self.listed(Plain(node), 0))

    def test_orders_hold_under_rules_that_a_reload_brings(self):
        node = self.node()
        client = Plain(node)
        self.assertEqual(client.ask("TALLY.BLOCK", "api", "bob", HOUR_MS), "OK")
        self.small(rules=[dict(RULES[0], limit=50), RULES[1]])
        self.assertEqual(client.ask("TALLY.RELOAD"), "OK")
        self.until(lambda: client.ask("TALLY.PEEK", "api", "eve")[1] == 50)
        self.assertTrue(self.blocked(client))
        self.assertEqual(client.ask("TALLY.LIFT", "api", "bob"), 1)
        self.until(lambda: client.ask("TALLY.PEEK", "api", "bob")[1] == 50)

    def test_wrong_orders_say_what_is_wrong(self):
        client = Plain(self.node())
        for words, error in ((("TALLY.BLOCK", "apo", "bob", "1"), "NORULE no rule 'apo'; did you mean 'api'?"),
                             (("TALLY.BLOCK", "api", "bob", "0"), "ERR value is not an integer or out of range: ms must be 1 or more, got '0'"),
                             (("TALLY.BLOCK", "api", "bob", "31622400001"),
                              "ERR value is not an integer or out of range: ms must be 31622400000 at most, got '31622400001'"),
                             (("TALLY.BLOCK", "api", "x" * 1001, "1"),
                              "ERR a key of which something is ordered must have 1000 bytes at most, got 1001"),
                             (("TALLY.LIMIT", "api", "bob", "0", "1"), "ERR value is not an integer or out of range: n must be 1 or more, got '0'"),
                             (("TALLY.BLOCK", "api", "bob"), "ERR wrong number of arguments for 'tally.block' command")):
            self.assertEqual(str(client.ask(*words)), error)

    def test_the_tool_orders_lifts_and_lists(self):
        node = self.node()
        self.assertEqual(self.tally(node, "blocks"), "nothing is ordered of any key\n")
        self.assertEqual(self.tally(node, "block", "api", "bob", "10m"), "blocked for 10m\n")
        self.assertEqual(self.tally(node, "limit", "api", "eve", "50", "1.5h"), "limited for 1.5h\n")
        self.assertEqual(self.tally(node, "--json", "allow", "feed", "joe", "1d"), '{"ordered":true}\n')
        head, bob, eve, joe = [line.split() for line in self.tally(node, "blocks").splitlines()]
        self.assertEqual(head, ["rule", "key", "order", "limit", "for"])
        self.assertEqual((bob[:4], eve[:4], joe[:4]), (["api", "bob", "block", "-"], ["api", "eve", "limit", "50"], ["feed", "joe", "allow", "-"]))
        self.assertEqual(self.tally(node, "lift", "api", "bob"), "lifted\n")
        self.assertEqual(self.tally(node, "lift", "api", "bob"), "nothing is ordered of this key\n")

    def test_the_tool_says_what_is_wrong_in_its_own_words(self):
        node = self.node()
        for words, wrong in ((("block", "api", "bob", "soon"), "FOR: must be a duration"),
                             (("block", "api", "bob", "0"), 'FOR: must be 1ms to 366d, got "0"'),
                             (("block", "api", "bob", "999us"), 'FOR: must be 1ms to 366d, got "999us"'),
                             (("block", "api", "bob", "367d"), 'FOR: must be 1ms to 366d, got "367d"'),
                             (("block", "api", "bob", "-5m"), "'-5m': numbers and durations are not negative"),
                             (("limit", "api", "bob", "5.5", "1m"), 'N: must be a whole number, 1 to 2147483648, got "5.5"'),
                             (("limit", "api", "bob", "0", "1m"), 'N: must be a whole number, 1 to 2147483648, got "0"'),
                             (("limit", "feed", "bob", "1000", "1m"), "n must be 416 at most, got 1000: a bucket must fill within 417 days")):
            self.assertIn(wrong, self.tally(node, *words, code=2))
        self.assertEqual(self.tally(node, "--", "block", "api", "-5", "1m"), "blocked for 1m\n")

    def test_the_tool_shows_control_characters_of_keys_and_does_not_send_them_to_the_terminal(self):
        node = self.node()
        self.assertEqual(Plain(node).ask("TALLY.BLOCK", "api", "a\x1b[2J\nb", HOUR_MS), "OK")
        head, row = self.tally(node, "blocks").splitlines()
        self.assertIn("a\\x1b[2J\\x0ab", row)
        self.assertNotIn("\x1b", row)


class Fleets(Orders):
    def setUp(self):
        super().setUp()
        self.ports = free_ports(3)
        self.peers = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        self.config = self.small(rules=RULES, cluster={"sync_interval": "20ms", "isolation_after": "1h"})

    def node(self, i):
        return self.start("-c", self.config, "--bind", f"127.0.0.1:{self.ports[i]}", "--peers", self.peers, name=f"n{i}")

    def whole(self):
        nodes = [self.node(i) for i in range(3)]
        return [node.ready() for node in nodes]

    def test_a_key_that_is_blocked_at_one_is_refused_at_all_until_it_is_lifted_at_another(self):
        clients = [Plain(node) for node in self.whole()]
        self.assertEqual(clients[0].ask("TALLY.BLOCK", "api", "bob", HOUR_MS), "OK")
        for client in clients:
            self.until(lambda: self.blocked(client))
            self.assertEqual(client.ask("TALLY.TAKE", "api", "bob")[5], BLOCKED)
            self.assertEqual(len(client.ask("TALLY.BLOCKS")), 1)
        self.assertEqual(clients[2].ask("TALLY.LIFT", "api", "bob"), 1)
        for client in clients:
            self.until(lambda: not self.blocked(client))
        self.assertEqual(clients[1].ask("TALLY.TAKE", "api", "bob")[0], 0)

    def test_an_order_ends_at_all_by_itself(self):
        clients = [Plain(node) for node in self.whole()]
        self.assertEqual(clients[0].ask("TALLY.BLOCK", "api", "bob", "1000"), "OK")
        for client in clients:
            self.until(lambda: not self.blocked(client) and client.ask("TALLY.BLOCKS") == [])

    def test_a_node_that_was_restarted_still_knows_and_one_without_its_file_hears_of_it(self):
        nodes = self.whole()
        clients = [Plain(node) for node in nodes]
        self.assertEqual(clients[0].ask("TALLY.BLOCK", "api", "bob", HOUR_MS), "OK")
        for client in clients:
            self.until(lambda: self.blocked(client))
        self.assertEqual(nodes[1].end(), 0)
        again = Plain(self.node(1).ready())
        self.until(lambda: self.blocked(again))
        nodes[2].end(signal.SIGKILL)
        (self.folder / "tallyd" / "n2.state.orders").unlink()
        again = Plain(self.node(2).ready())
        self.until(lambda: self.blocked(again))

    def test_another_limit_is_shared_by_the_fleet_in_a_window_that_runs(self):
        clients = [Plain(node) for node in self.whole()]
        took = lambda n: sum(clients[i % 3].ask("TALLY.TAKE", "api", "bob")[0] == 0 for i in range(n))  # noqa: E731
        self.assertEqual(took(9), 5)
        self.assertEqual(clients[0].ask("TALLY.LIMIT", "api", "bob", "8", HOUR_MS), "OK")
        for client in clients:
            self.until(lambda: client.ask("TALLY.PEEK", "api", "bob")[1] == 8)
        more = []  # a node that was told that all is used asks again in a moment
        self.until(lambda: more.append(took(3)) or sum(more) == 3)
        self.assertEqual(took(9), 0)
        self.assertEqual(clients[1].ask("TALLY.LIFT", "api", "bob"), 1)
        for client in clients:
            self.until(lambda: client.ask("TALLY.PEEK", "api", "bob")[1] == 5)
        self.assertEqual(took(9), 0)

    def test_after_an_order_a_key_goes_by_its_override_again_in_the_window_that_runs(self):
        self.small(rules=[dict(RULES[0], overrides={"bob": 12})], cluster={"sync_interval": "20ms", "isolation_after": "1h"})
        clients = [Plain(node) for node in self.whole()]
        took = lambda n: sum(clients[i % 3].ask("TALLY.TAKE", "api", "bob")[0] == 0 for i in range(n))  # noqa: E731
        self.assertEqual(clients[0].ask("TALLY.LIMIT", "api", "bob", "4", HOUR_MS), "OK")
        for client in clients:
            self.until(lambda: client.ask("TALLY.PEEK", "api", "bob")[1] == 4)
        self.assertEqual(took(12), 4)
        self.assertEqual(clients[1].ask("TALLY.LIFT", "api", "bob"), 1)
        for client in clients:
            self.until(lambda: client.ask("TALLY.PEEK", "api", "bob")[1] == 12)
        more = []
        self.until(lambda: more.append(took(3)) or sum(more) == 8)
        self.assertEqual(took(9), 0)


if __name__ == "__main__":
    main(sys.argv)
