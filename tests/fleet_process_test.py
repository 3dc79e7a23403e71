#!/usr/bin/env python3
"""Several tallyds as one fleet: fleet_process_test.py TALLYD TALLY [TEST...]

Sharing a limit, requests that wait, questions that travel, the state file, metrics.
"""
import signal
import subprocess
import sys
import time
import urllib.request

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from processes import DAY, WAIT_S, Case, Daemon, Plain, free_ports  # noqa: E402


RULES = [{"name": "login", "limit": 5, "window": DAY, "algorithm": "fixed_window", "max_overcount": 0, "wait": "10s",
          "on_isolation": "closed"},
         {"name": "remembered", "limit": 20, "window": DAY, "algorithm": "fixed_window", "max_overcount": 0, "wait": "200ms",
          "on_isolation": "closed", "on_amnesia": "deny"},
         {"name": "soon", "limit": 5, "window": DAY, "algorithm": "fixed_window", "max_overcount": 0, "wait": "50ms",
          "on_isolation": "closed"},
         {"name": "api", "limit": 3000, "window": DAY, "algorithm": "fixed_window", "max_overcount": "10%"},
         {"name": "feed", "algorithm": "token_bucket", "rate": "1/h", "burst": 100}]


def metrics_of(node):
    return urllib.request.urlopen(f"http://{node.http()}/metrics", timeout=WAIT_S).read().decode()


class Fleets(Case):
    def setUp(self):
        super().setUp()
        self.ports = free_ports(3)
        self.peers = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        self.config = self.small(rules=RULES, cluster={"sync_interval": "20ms", "isolation_after": "1h"})

    # Asks again until it is admitted: on a busy machine a grant may come later than a rule waits.
    def take(self, node, rule, cost):
        end = time.monotonic() + WAIT_S
        while Plain(node).ask("TALLY.TAKE", rule, "bob", str(cost))[0] != 0:
            self.assertLess(time.monotonic(), end)

    def node(self, i, *more):
        return self.start("-c", self.config, "--bind", f"127.0.0.1:{self.ports[i]}", "--peers", self.peers,
                          "--listen-http", "127.0.0.1:0", *more, name=f"n{i}")

    def whole(self):
        nodes = [self.node(i) for i in range(3)]
        return [node.ready() for node in nodes]

    def test_three_daemons_share_a_strict_limit_exactly(self):
        nodes = self.whole()
        clients = [Plain(node) for node in nodes]
        replies = [client.ask("TALLY.TAKE", "login", "bob") for client in clients * 5]
        self.assertEqual(sum(reply[0] == 0 for reply in replies), 5, replies)
        self.assertEqual({reply[5] for reply in replies if reply[0]}, {1})
        self.assertEqual(clients[0].ask("TALLY.RESET", "login", "bob"), "OK")
        self.assertEqual(clients[0].ask("TALLY.TAKE", "login", "bob")[0], 0)
        self.assertEqual([node.end() for node in nodes], [0, 0, 0])

    def test_several_limits_are_taken_together_or_not_at_all(self):
        clients = [Plain(node) for node in self.whole()]
        both = ("TALLY.TAKEALL", "remembered", "bob", "1", "login", "bob", "1")
        for client in clients:
            client.send(*[both] * 20)
        replies = [client.next() for client in clients for _ in range(20)]
        self.assertEqual(sum(reply[0] == 0 for reply in replies), 5, replies)
        self.assertEqual({reply[1] for reply in replies if reply[0]}, {1}, replies)
        self.assertEqual({reply[3][5] for reply in replies if reply[0]}, {1}, replies)
        # What was refused has cost nothing: of the larger limit all that is left can still be taken.
        admitted, limited, end = 0, 0, time.monotonic() + WAIT_S
        while limited < 3:
            self.assertLess(time.monotonic(), end)
            answers = [client.ask("TALLY.TAKE", "remembered", "bob") for client in clients]
            admitted += sum(answer[0] == 0 for answer in answers)
            limited = sum(answer[5] == 1 for answer in answers)
        self.assertEqual(admitted, 15)

    def test_hosts_share_a_limit_that_aggregators_keep_and_one_of_these_may_die(self):
        ports = free_ports(5)
        peers = [f"127.0.0.1:{port}" for port in ports]
        config = self.small(rules=RULES, cluster={"sync_interval": "20ms", "isolation_after": "1h", "peers": peers, "aggregators": peers[:3]})
        nodes = [self.start("-c", config, "--bind", peer, name=f"n{i}") for i, peer in enumerate(peers)]
        edges = [Plain(node.ready()) for node in nodes][3:]
        for key in ("bob", "eve", "joe"):
            replies = [client.ask("TALLY.TAKE", "login", key)[0] for client in edges * 4]
            self.assertEqual(replies.count(0), 5, key)
            told = edges[0].ask("TALLY.EXPLAIN", "login", key)
            self.assertIn(told[told.index(b"owner") + 1].decode(), peers[:3])
        table = edges[0].ask("TALLY.PEERS")
        self.assertEqual({name.decode(): row[1].decode() for name, row in zip(table[::2], table[1::2])},
                         {peer: "aggregator" if peer in peers[:3] else "edge" for peer in peers})
        nodes[0].end(signal.SIGKILL)
        for key in ("mia", "ben", "zoe", "kim"):  # some are its own
            end = time.monotonic() + WAIT_S
            admitted = 0
            while admitted < 5:  # those that come before it is passed over get no grant in time, and nothing is lost by it
                self.assertLess(time.monotonic(), end, key)
                admitted += sum(client.ask("TALLY.TAKE", "login", key)[0] == 0 for client in edges)
            self.assertEqual((admitted, [client.ask("TALLY.TAKE", "login", key)[0] for client in edges]), (5, [1, 1]), key)
        self.assertEqual([node.end() for node in nodes[1:]], [0] * 4)

    def test_a_request_that_waits_holds_up_nobody_else(self):
        node = self.node(0).ready()  # no other is there: a strict rule has nothing to give
        waiting, other = Plain(node), Plain(node)
        waiting.send(("TALLY.TAKE", "login", "bob"), ("TALLY.TAKE", "api", "bob"), ("PING",))
        other.until(lambda stats: stats["waiting"] == 1 and stats["admitted"] == 1)  # the decision behind it was made
        self.assertEqual(other.ask("TALLY.TAKE", "api", "bob")[0], 0)
        self.assertEqual(other.ask("PING"), "PONG")
        self.assertTrue(waiting.silent())
        others = [self.node(i) for i in (1, 2)]  # now they come, and the wait ends
        self.assertEqual([waiting.next()[0], waiting.next()[0], waiting.next()], [0, 0, "PONG"])
        self.assertEqual([each.end() for each in [node, *others]], [0, 0, 0])

    def test_a_wait_ends_with_no_grant_at_its_deadline(self):
        node = self.node(0).ready()
        client = Plain(node)
        client.send(("TALLY.TAKE", "soon", "bob"), ("PING",))
        limited, limit, remaining, retry_ms, _, reason = client.next()
        self.assertEqual((limited, limit, retry_ms, reason), (1, 5, 20, 2))
        self.assertEqual(client.next(), "PONG")
        self.assertEqual(node.end(), 0)

    def test_workers_that_spin_wait_for_grants_and_deadlines_as_those_that_sleep(self):
        self.config = self.small(rules=RULES, cluster={"sync_interval": "20ms", "isolation_after": "1h"}, spin="10ms")
        node = self.node(0).ready()
        waiting, soon = Plain(node), Plain(node)
        waiting.send(("TALLY.TAKE", "login", "bob"))
        self.assertEqual(soon.ask("TALLY.TAKE", "soon", "bob")[5], 2)  # nobody is there to grant: its deadline ends it
        others = [self.node(i) for i in (1, 2)]
        self.assertEqual(waiting.next()[0], 0)
        self.assertEqual([each.end() for each in [node, *others]], [0, 0, 0])

    def test_what_waits_on_a_connection_that_closes_is_not_charged(self):
        node = self.node(0).ready()
        gone, other = Plain(node), Plain(node)
        gone.send(*[("TALLY.TAKE", "login", "bob")] * 5)
        other.until(lambda stats: stats["waiting"] == 5)
        gone.connection.close()
        other.until(lambda stats: stats["waiting"] == 0)
        others = [self.node(i) for i in (1, 2)]
        replies = [other.ask("TALLY.TAKE", "login", "bob")[0] for _ in range(6)]
        self.assertEqual(replies, [0, 0, 0, 0, 0, 1])
        self.assertEqual([each.end() for each in [node, *others]], [0, 0, 0])

    def test_what_waits_when_the_daemon_is_told_to_end_is_answered(self):
        node = self.node(0).ready()
        waiting, other = Plain(node), Plain(node)
        waiting.send(("TALLY.TAKE", "soon", "bob"), ("PING",))
        other.until(lambda stats: stats["waiting"] == 1 or stats["no_grant"] == 1)
        node.process.send_signal(signal.SIGTERM)
        self.assertEqual(waiting.next()[5], 2)
        self.assertEqual(waiting.next(), "PONG")
        self.assertEqual(node.ended(), 0)

    def test_give_explain_peers_and_stats_are_answered_in_their_place(self):
        nodes = self.whole()
        client = Plain(nodes[0])
        client.send(("TALLY.TAKE", "api", "k", "3"), ("TALLY.GIVE", "api", "k", "2"), ("PING",),
                    ("TALLY.EXPLAIN", "api", "k"), ("TALLY.PEERS",), ("TALLY.STATS",), ("ECHO", "end"))
        self.assertEqual(client.next()[0], 0)
        self.assertEqual(len(client.next()), 6)
        self.assertEqual(client.next(), "PONG")
        explained = client.next()
        self.assertEqual(dict(zip(explained[::2], explained[1::2]))[b"bound"], 3300)
        self.assertEqual(sorted(name.decode() for name in client.next()[::2]), sorted(self.peers.split(",")))
        self.assertIn(b"datagrams_out", client.next()[::2])
        self.assertEqual(client.next(), b"end")
        for rule in ("(inline)", "feed", "login"):
            self.assertIn(b"reason", client.ask("TALLY.EXPLAIN", rule, "k"))
        self.assertEqual([node.end() for node in nodes], [0, 0, 0])

    def test_the_state_file_is_ahead_of_the_clock_and_each_life_has_a_later_incarnation(self):
        def state():
            lines = (self.folder / "tallyd" / "n0.state").read_text().splitlines()
            return dict(line.split(" ", 1) for line in lines)

        first = self.node(0).ready()
        now_ns = time.time_ns()
        before = state()
        self.assertEqual(before["entry"], f"127.0.0.1:{self.ports[0]}")
        self.assertGreater(int(before["horizon"]), now_ns)
        first.end(signal.SIGKILL)
        second = self.node(0).ready()
        after = state()
        self.assertGreater(int(after["incarnation"]), int(before["incarnation"]))
        self.assertGreaterEqual(int(after["horizon"]), int(before["horizon"]))
        self.assertIn("first_life=no", second.text())
        self.assertEqual(second.end(), 0)

    def test_nodes_killed_one_after_the_other_lose_no_vote_and_forget_no_count(self):
        nodes = self.whole()
        taken = 5
        for _ in range(taken):
            self.take(nodes[0], "remembered", 1)
        for i in range(3):
            nodes[i].end(signal.SIGKILL)
            nodes[i] = self.node(i).ready()
        taken += sum(Plain(node).ask("TALLY.TAKE", "remembered", "bob")[0] == 0 for node in nodes for _ in range(10))
        self.assertLessEqual(taken, 20)
        self.assertGreater(taken, 5)  # without votes nothing more would be issued; what each owner's death costs is for benchmarks
        self.assertEqual([node.end() for node in nodes], [0, 0, 0])

    def test_all_who_are_left_restart_in_order_while_one_is_dead_and_go_on_voting(self):
        nodes = self.whole()
        kept = 5
        for _ in range(kept):
            self.take(nodes[0], "remembered", 1)
        nodes[2].end(signal.SIGKILL)
        for i in (0, 1):
            self.assertEqual(nodes[i].end(), 0)
            registers = next((self.folder / "tallyd").glob(f"n{i}.state.registers"))
            nodes[i] = self.node(i).ready()
            self.assertFalse(registers.exists())
            self.assertRegex(nodes[i].text(), r"registers_kept=[1-9]")
        self.take(nodes[1], "remembered", 1)  # a majority that remembers the window
        more = sum(Plain(node).ask("TALLY.TAKE", "remembered", "bob")[0] == 0 for node in nodes[:2] for _ in range(12))
        self.assertLessEqual(kept + 1 + more, 20)

    def test_after_the_death_of_all_a_rule_begins_anew_or_denies_as_it_says(self):
        nodes = self.whole()
        for rule in ("login", "remembered"):
            self.take(nodes[0], rule, 5)
        for node in nodes:
            node.end(signal.SIGKILL)
        nodes = self.whole()
        replies = [Plain(node).ask("TALLY.TAKE", "login", "bob") for node in nodes * 2]
        self.assertEqual(sum(reply[0] == 0 for reply in replies), 5, replies)
        self.assertEqual(Plain(nodes[1]).ask("TALLY.TAKE", "remembered", "bob")[0], 1)
        self.assertEqual(sum('tallyd_claims_total{outcome="anew"} 1\n' in metrics_of(node) for node in nodes), 1)
        self.assertEqual([node.end() for node in nodes], [0, 0, 0])

    def test_a_second_daemon_with_the_same_name_is_refused(self):
        first = self.node(0).ready()
        # Another socket and another port: the state file alone tells.
        other = free_ports(1)[0]
        second = Daemon(self.folder, ["-c", self.config, "--bind", f"127.0.0.1:{other}", "--peers", f"{self.peers},127.0.0.1:{other}",
                                      "--listen-resp", f"unix:{self.folder}/other.sock"], "n0")
        self.addCleanup(second.kill)
        self.assertEqual(second.ended(), 1)
        self.assertIn("another tallyd is running with the state file", second.text())
        self.assertEqual(first.end(), 0)

    def test_a_damaged_state_file_is_an_error_that_says_what_to_do(self):
        (self.folder / "tallyd").mkdir()
        (self.folder / "tallyd" / "n0.state").write_text("tallyd-state 1\nentry 127")
        node = self.node(0)
        self.assertEqual(node.ended(), 1)
        self.assertRegex(node.text(), r"n0\.state is damaged: .*; restore it, or remove it")

    def test_the_metrics_of_a_fleet_are_what_promtool_wants(self):
        nodes = self.whole()
        client = Plain(nodes[0])
        for key in range(20):
            client.ask("TALLY.TAKE", "login", key)
        client.ask("TALLY.TAKE", "nonsense", "k")
        for _ in range(300):
            client.ask("TALLY.TAKE", "api", "busy")
        text = metrics_of(nodes[0])
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 text=True, timeout=WAIT_S)
        self.assertEqual((checked.returncode, checked.stdout), (0, ""))
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        self.assertEqual(float(values['tallyd_decisions_total{rule="login",outcome="admitted"}']), 20)
        self.assertEqual(float(values['tallyd_decisions_total{rule="",outcome="unknown_rule"}']), 1)
        self.assertEqual(float(values['tallyd_overcount_promised_ratio{rule="login"}']), 0)
        self.assertAlmostEqual(float(values['tallyd_overcount_promised_ratio{rule="api"}']), 0.1)
        self.assertGreater(float(values['tallyd_sync_entries_total{kind="report",direction="out"}']), 0)
        samples = float(values["tallyd_sync_staleness_seconds_count"])
        self.assertTrue(0 < samples <= 320 / 97 + 2, samples)  # one in 97 by each of two workers
        self.assertEqual(float(values['tallyd_isolated_decisions_total{rule="api",policy="share"}']), 0)
        for port in self.ports[1:]:
            self.assertEqual(float(values[f'tallyd_peer_up{{peer="127.0.0.1:{port}"}}']), 1)
            self.assertGreater(float(values[f'tallyd_sync_bytes_total{{peer="127.0.0.1:{port}",direction="in"}}']), 0)
        self.assertEqual([node.end() for node in nodes], [0, 0, 0])


if __name__ == "__main__":
    processes.main(sys.argv)
