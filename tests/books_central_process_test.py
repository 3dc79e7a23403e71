#!/usr/bin/env python3
"""Central rules, each decision of which is one of Redis: books_central_process_test.py TALLYD TALLY [TEST...]"""
import json
import signal
import sys
import urllib.error
import urllib.request

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from books_process_test import Books, rule  # noqa: E402
from processes import WAIT_S, Plain, encode  # noqa: E402


def central(name, limit, **more):
    return rule(name, limit, mode="central", **{"wait": "10s", "on_isolation": "closed", **more})


BUCKET = {"name": "feed", "algorithm": "token_bucket", "rate": "1/h", "burst": 50, "mode": "central", "on_isolation": "closed", "wait": "10s"}
RULES = [central("login", 5), central("fixed", 100), central("sliding", 100, algorithm="sliding_window"), central("month", 100, window="month"), BUCKET,
         central("share", 30, on_isolation="share"), central("open", 30, on_isolation="open"), rule("leased", 10, wait="10s"), central("both", 20, also=["leased"]),
         central("trial", 1, shadow=True)]
CENTRAL = ("fixed", 100), ("sliding", 100), ("month", 100), ("feed", 50)


class Central(Books):
    def fleet(self, n=3, **more):
        nodes = super().fleet(n, **{"rules": RULES, **more})
        for node in nodes:
            self.until(lambda node=node: self.metric(node, "tallyd_books_up") == 1)
        return nodes

    def calls(self, nodes, outcome):
        return sum(self.metric(node, f'tallyd_central_calls_total{{outcome="{outcome}"}}') for node in nodes)

    # `n` of each node at once, down one connection. Returns the answers.
    def pipelined(self, nodes, name, key, n):
        clients = [Plain(node) for node in nodes]
        for client in clients:
            client.send(*[("TALLY.TAKE", name, key)] * n)
        return [client.next() for client in clients for _ in range(n)]


class Deciding(Central):
    def test_each_kind_of_limit_is_shared_exactly(self):
        nodes = self.fleet()
        for name, limit in CENTRAL:
            answers = self.pipelined(nodes, name, "bob", 200)
            self.assertEqual(sum(answer[0] == 0 for answer in answers), limit, name)
            self.assertEqual({answer[5] for answer in answers if answer[0] == 1}, {1}, name)
            self.assertEqual(sorted({answer[2] for answer in answers if answer[0] == 0}), list(range(limit)), name)
        self.assertEqual(self.calls(nodes, "answered"), 4 * 600)

    def test_a_pipeline_is_answered_in_order_whoever_decides(self):
        nodes = self.fleet(1)
        self.take(nodes, "leased", "amy", 1)
        client = Plain(nodes[0])
        commands = [("TALLY.TAKE", "login", "bob"), ("PING",), ("TALLY.TAKE", "leased", "amy"), ("TALLY.TAKE", "fixed", "bob", "7")] * 5
        client.send(*commands)
        answers = [client.next() for _ in commands]
        self.assertEqual([answer[2] for answer in answers[0::4]], [4, 3, 2, 1, 0])
        self.assertEqual(answers[1::4], ["PONG"] * 5)
        self.assertEqual([answer[:2] for answer in answers[2::4]], [[0, 10]] * 5)
        self.assertEqual([answer[2] for answer in answers[3::4]], [93, 86, 79, 72, 65])

    def test_a_peek_takes_nothing_and_says_what_a_take_would(self):
        one, two = (Plain(node) for node in self.fleet(2))
        self.assertEqual([one.ask("TALLY.PEEK", "login", "bob")[:3] for _ in range(3)], [[0, 5, 5]] * 3)
        self.assertEqual(one.ask("TALLY.TAKE", "login", "bob", "5")[:3], [0, 5, 0])
        self.assertEqual(two.ask("TALLY.PEEK", "login", "bob")[:3], [1, 5, 0])
        self.assertEqual(two.ask("TALLY.TAKE", "login", "bob", "6")[3], -1)  # never
        told = two.ask("TALLY.EXPLAIN", "login", "bob")
        told = dict(zip([name.decode() for name in told[::2]], told[1::2]))
        self.assertEqual((told["owner"], told["used_fleet"], told["bound"]), (b"(books)", 5, 5))

    def test_what_is_given_back_and_what_is_reset_can_be_taken_again(self):
        nodes = self.fleet()
        clients = [Plain(node) for node in nodes]
        for name, limit in CENTRAL:
            self.assertEqual(clients[0].ask("TALLY.TAKE", name, "bob", str(limit))[0], 0)
            self.assertEqual(clients[1].ask("TALLY.GIVE", name, "bob", "3")[:3], [0, limit, 3], name)
            self.assertEqual(sum(answer[0] == 0 for answer in self.pipelined(nodes, name, "bob", 5)), 3, name)
            self.assertEqual(clients[2].ask("TALLY.RESET", name, "bob"), "OK")
            self.assertEqual(clients[0].ask("TALLY.PEEK", name, "bob")[2], limit)

    def test_limits_that_come_with_a_call_are_central_where_the_cluster_is(self):
        one, two = (Plain(node) for node in self.fleet(2, rules=[], mode="central"))
        self.assertEqual([client.ask("CL.THROTTLE", "bob", "2", "1", "3600")[:3] for client in (one, two, one, two)], [[0, 3, 2], [0, 3, 1], [0, 3, 0], [1, 3, 0]])
        self.assertEqual(two.ask("CL.THROTTLE", "bob", "2", "1", "3600", "0")[:3], [0, 3, 0])
        self.assertEqual([one.ask("DEL", "bob", "amy"), one.ask("DEL", "bob")], [1, 0])
        self.assertEqual(two.ask("CL.THROTTLE", "bob", "2", "1", "3600")[:3], [0, 3, 2])

    def test_overrides_and_orders_go_before(self):
        rules = [central("login", 5, overrides={"evil*": "blocked", "us": "exempt", "big": 7})]
        one, two = (Plain(node) for node in self.fleet(2, rules=rules))
        self.assertEqual([one.ask("TALLY.TAKE", "login", key)[5] for key in ("evil-1", "us")], [5, 6])
        self.assertEqual(two.ask("TALLY.TAKE", "login", "big", "7")[:3], [0, 7, 0])
        told = one.ask("TALLY.EXPLAIN", "login", "evil-1")
        told = dict(zip([name.decode() for name in told[::2]], told[1::2]))
        self.assertEqual((told["owner"], told["override"]), (b"(books)", b"evil*"))
        self.assertEqual(one.ask("TALLY.LIMIT", "login", "bob", "2", "3600000"), "OK")
        self.until(lambda: two.ask("TALLY.PEEK", "login", "bob")[1] == 2)
        self.assertEqual([client.ask("TALLY.TAKE", "login", "bob")[0] for client in (one, two, one)], [0, 0, 1])

    def test_a_rule_in_shadow_counts_and_lets_through(self):
        client = Plain(self.fleet(1)[0])
        self.assertEqual([client.ask("TALLY.TAKE", "trial", "bob")[5] for _ in range(2)], [0, 4])

    def test_names_are_as_the_docs_say_and_end_by_themselves(self):
        client = Plain(self.fleet(1, rules=[central("short", 5, window="300ms")])[0])
        self.assertEqual(client.ask("TALLY.TAKE", "short", "bob")[0], 0)
        redis = Plain(self.redis)
        self.until(lambda: not any(b":c1:" in name for name in redis.ask("KEYS", "*")))
        self.assertEqual(client.ask("TALLY.TAKE", "short", "bob")[0], 0)
        self.assertRegex(next(name for name in redis.ask("KEYS", "*") if b":c1:" in name), rb"^tally:\{0\}:c1:[0-9a-f]{24}$")


class Together(Central):
    def fleet(self):
        return super().fleet(isolation_after="2s")

    def test_a_central_and_a_leased_rule_are_taken_both_or_none(self):
        nodes = self.fleet()
        client = Plain(nodes[0])
        self.until(lambda: client.ask("TALLY.TAKEALL", "fixed", "bob", "4", "leased", "bob", "3")[:2] == [0, -1])
        self.assertEqual(client.ask("TALLY.TAKEALL", "leased", "bob", "11", "fixed", "bob", "4")[:2], [1, 0])
        self.assertEqual(client.ask("TALLY.TAKEALL", "leased", "bob", "2", "login", "bob", "6")[:2], [1, 1])
        self.assertEqual(client.ask("TALLY.PEEK", "fixed", "bob")[2], 96)
        self.assertEqual(client.ask("TALLY.PEEK", "login", "bob")[2], 5)
        self.assertEqual(client.ask("TALLY.TAKEALL", "leased", "bob", "2", "login", "bob", "5")[:2], [0, -1])
        self.assertEqual(client.ask("TALLY.TAKEALL", "fixed", "bob", "1", "login", "bob", "1")[:2], [1, 1])
        self.until(lambda: client.ask("TALLY.PEEK", "fixed", "bob")[2] == 96)  # what was taken is given back behind the answer

    def test_one_that_takes_another_along_does_so_over_all_nodes(self):
        nodes = self.fleet()
        self.assertEqual(self.drain(nodes, "both", "bob"), 10)
        client = Plain(nodes[0])
        self.until(lambda: client.ask("TALLY.PEEK", "fixed", "bob")[2] == 100 and Plain(nodes[1]).ask("TALLY.PEEK", "both", "bob")[0] == 1)

    def test_two_central_rules_that_one_request_takes(self):
        nodes = self.fleet()
        clients = [Plain(node) for node in nodes]
        for client in clients:
            client.send(*[("TALLY.TAKEALL", "login", "bob", "1", "fixed", "bob", "1")] * 20)
        self.assertEqual(sum(client.next()[0] == 0 for client in clients for _ in range(20)), 5)
        self.until(lambda: clients[0].ask("TALLY.PEEK", "fixed", "bob")[2] == 95)


class Away(Central):
    def test_each_rule_goes_by_its_own_policy_at_once_and_back(self):
        nodes = self.fleet()
        clients = [Plain(node) for node in nodes]
        for name in ("login", "share", "open"):
            self.assertEqual(clients[0].ask("TALLY.TAKE", name, "bob")[5], 0)
        self.redis.end(signal.SIGKILL)
        self.assertEqual({tuple(answer[:1] + answer[5:]) for answer in self.pipelined(nodes, "login", "bob", 5)}, {(1, 3)})
        self.assertEqual(sum(answer[0] == 0 for answer in self.pipelined(nodes, "share", "bob", 50)), 30)
        self.assertEqual([sum(answer[0] == 0 for answer in self.pipelined([node], "open", "bob", 50)) for node in nodes], [30] * 3)
        self.assertIn(b"ERR Redis does not answer", clients[0].ask("TALLY.GIVE", "login", "bob", "1").args[0].encode())
        self.assertGreater(self.calls(nodes, "unreachable"), 0)
        self.redis = self.server()
        for client in clients:
            self.until(lambda client=client: client.ask("TALLY.PEEK", "login", "bob")[5] != 3)
        self.assertEqual(sum(answer[0] == 0 for answer in self.pipelined(nodes, "login", "amy", 5)), 5)

    def test_a_redis_that_hangs_is_waited_for_as_long_as_the_rule_says_and_what_it_does_late_does_not_count(self):
        rules = [central("login", 5, wait="50ms"), central("slow", 5, wait="10s")]
        nodes = self.fleet(1, rules=rules, isolation_after="120s")
        client, other = Plain(nodes[0]), Plain(nodes[0])
        self.assertEqual(client.ask("TALLY.TAKE", "login", "bob")[:3], [0, 5, 4])
        self.redis.process.send_signal(signal.SIGSTOP)
        other.send(("TALLY.TAKE", "slow", "bob"))
        self.assertEqual([client.ask("TALLY.TAKE", "login", "bob")[5] for _ in range(3)], [3] * 3)
        self.assertTrue(other.silent())
        self.redis.process.send_signal(signal.SIGCONT)
        self.assertEqual(other.next()[:3], [0, 5, 4])
        self.until(lambda: client.ask("TALLY.PEEK", "login", "bob")[2] == 4)
        self.assertEqual(self.calls(nodes, "late"), 3)

    def test_a_connection_that_goes_leaves_nothing_charged(self):
        nodes = self.fleet(1, isolation_after="120s")
        self.redis.process.send_signal(signal.SIGSTOP)
        asker = nodes[0].connect()
        asker.sendall(encode("TALLY.TAKE", "login", "bob", "5"))
        self.until(lambda: self.metric(nodes[0], "tallyd_waiting_requests") == 1)
        asker.close()
        self.until(lambda: self.metric(nodes[0], 'tallyd_connections{protocol="resp"}') == 0)
        self.redis.process.send_signal(signal.SIGCONT)
        client = Plain(nodes[0])
        self.until(lambda: client.ask("TALLY.PEEK", "login", "bob")[2] == 5)

    def test_a_mode_is_not_changed_by_a_reload_and_needs_books(self):
        node = self.fleet(1, rules=[central("login", 5)])[0]
        client = Plain(node)
        config = json.loads(self.config.read_text())
        config["rules"] = [rule("login", 5)]
        self.write(config)
        self.assertIn('rules[0].mode: is central for "login" since this daemon started', client.ask("TALLY.RELOAD").args[0])
        config["rules"] = [central("login", 5), central("other", 3)]
        self.write(config)
        self.assertEqual(client.ask("TALLY.RELOAD"), "OK")
        self.assertEqual(client.ask("TALLY.TAKE", "other", "bob")[:3], [0, 3, 2])
        del config["cluster"]["books"]
        self.write(config)
        self.assertIn('rules[0].mode: "central" decides in the Redis that has the fleet', client.ask("TALLY.RELOAD").args[0])


class Doors(Central):
    def test_over_http(self):
        node = self.fleet(1)[0]

        def ask(path):
            try:
                with urllib.request.urlopen(f"http://{node.http()}{path}", timeout=WAIT_S) as reply:
                    return reply.status, reply.headers["RateLimit"]
            except urllib.error.HTTPError as error:
                return error.code, error.headers["RateLimit"]

        answers = [ask("/v1/auth?rule=login&key=bob&deny=429") for _ in range(6)]
        self.assertEqual([status for status, _ in answers], [204] * 5 + [429])
        self.assertEqual([told.split(";")[1] for _, told in answers], ["r=4", "r=3", "r=2", "r=1", "r=0", "r=0"])
        self.redis.end()
        self.assertEqual(ask("/v1/auth?rule=open&key=bob")[0], 204)
        self.assertEqual(ask("/v1/auth?rule=login&key=amy&deny=429")[0], 429)


if __name__ == "__main__":
    processes.main(sys.argv)
