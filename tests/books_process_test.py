#!/usr/bin/env python3
"""A fleet whose books are in Redis: books_process_test.py TALLYD TALLY [TEST...]"""
import subprocess
import sys
import threading
import time
import urllib.request

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from processes import DAY, WAIT_S, Case, Plain, free_ports  # noqa: E402
from redis_server import Redis  # noqa: E402


def rule(name, limit, **more):
    return {"name": name, "limit": limit, "window": DAY, "algorithm": "fixed_window", "max_overcount": 0, "on_isolation": "closed", "wait": "1s", **more}


RULES = [rule("login", 5), rule("strict", 100), rule("sliding", 100, algorithm="sliding_window"), rule("api", 1000, max_overcount="10%", on_isolation="share"),
         {"name": "feed", "algorithm": "token_bucket", "rate": "1/h", "burst": 50, "max_overcount": 0, "on_isolation": "closed", "wait": "1s"}]


class Books(Case):
    def setUp(self):
        super().setUp()
        self.redis = self.server()

    def server(self, name="redis", **more):
        server = Redis(self.folder, name, **more)
        self.addCleanup(server.end)
        return server

    def fleet(self, n=3, books=None, rules=None, ports=None, **cluster):
        self.ports = ports or free_ports(n)
        self.config = self.small(rules=RULES if rules is None else rules,
                                 cluster={"peers": [f"127.0.0.1:{port}" for port in self.ports], "books": books or f"unix:{self.redis.socket}",
                                          "sync_interval": "20ms", "isolation_after": "300ms", "lease": "200ms", **cluster})
        nodes = [self.node(i) for i in range(n)]
        return [node.ready() for node in nodes]

    def node(self, i):
        return self.start("-c", self.config, "--bind", f"127.0.0.1:{self.ports[i]}", "--listen-http", "127.0.0.1:0", name=f"n{i}")

    # Until nobody gets anything any more: how many were admitted in all. `refusals`: of each in a row that mean so.
    def drain(self, nodes, name, key, refusals=3):
        clients = [Plain(node) for node in nodes]
        admitted, refused, end = 0, 0, time.monotonic() + WAIT_S
        while refused < refusals:
            self.assertLess(time.monotonic(), end, f"{admitted} of {name} {key}")
            answers = [client.ask("TALLY.TAKE", name, key) for client in clients]
            admitted += sum(answer[0] == 0 for answer in answers)
            refused = refused + 1 if all(answer[5] == 1 for answer in answers) else 0
        return admitted

    def take(self, nodes, name, key, n):
        """n of each node, all admitted."""
        for node in nodes:
            client = Plain(node)
            for _ in range(n):
                end = time.monotonic() + WAIT_S
                while client.ask("TALLY.TAKE", name, key)[0] != 0:
                    self.assertLess(time.monotonic(), end, key)

    def until(self, what, said=""):
        end = time.monotonic() + WAIT_S
        while not what():
            self.assertLess(time.monotonic(), end, said)

    def told(self, client, name, key):
        flat = client.ask("TALLY.EXPLAIN", name, key)
        return dict(zip([name.decode() for name in flat[::2]], flat[1::2]))

    def metric(self, node, name):
        text = urllib.request.urlopen(f"http://{node.http()}/metrics", timeout=WAIT_S).read().decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((name + " ", name + "{")))

    def admitted(self, nodes, name):
        return sum(self.metric(node, f'tallyd_decisions_total{{rule="{name}",outcome="admitted"}}') for node in nodes)

    def losses(self, nodes):
        return [self.metric(node, "tallyd_books_losses_total") for node in nodes]


class Sharing(Books):
    def test_each_kind_of_limit_is_shared_exactly(self):
        nodes = self.fleet(lease="10s")  # a bucket's tokens are lost with their lease: none ends here, however slow the machine is
        for name, limit in (("login", 5), ("strict", 100), ("sliding", 100), ("feed", 50)):
            self.assertEqual(self.drain(nodes, name, "bob"), limit, name)
        told = self.told(Plain(nodes[1]), "strict", "bob")
        self.assertEqual((told["owner"], told["used_fleet"]), (b"(books)", 100))
        self.assertEqual([node.end() for node in nodes], [0] * 3)

    def test_one_node_of_three_may_use_all_of_it(self):
        nodes = self.fleet()
        self.assertEqual(self.drain(nodes[:1], "strict", "bob"), 100)

    def test_what_one_node_holds_and_does_not_use_another_one_gets_before_the_next_report(self):
        nodes = self.fleet(rules=[rule("strict", 100, wait="900ms")], sync_interval="2s", isolation_after="6s", lease="4s")
        self.take(nodes[:1], "strict", "bob", 40)
        self.assertEqual(self.drain(nodes[1:], "strict", "bob"), 60)
        self.assertGreater(self.metric(nodes[0], "tallyd_books_pushes_total"), 0)

    def test_overcount_stays_within_its_share(self):
        nodes = self.fleet()
        admitted = self.drain(nodes, "api", "bob")
        self.assertTrue(1000 <= admitted <= 1100, admitted)

    def test_what_is_put_back_and_what_is_reset_can_be_taken_again(self):
        nodes = self.fleet()
        self.assertEqual(self.drain(nodes, "login", "bob"), 5)
        self.assertEqual(Plain(nodes[0]).ask("TALLY.GIVE", "login", "bob", "2")[1], 5)
        self.assertEqual(self.drain(nodes, "login", "bob"), 2)
        self.assertEqual(Plain(nodes[2]).ask("TALLY.RESET", "login", "bob"), "OK")
        self.assertEqual(self.drain(nodes, "login", "bob"), 5)

    def test_a_limit_by_order_holds_at_once_whether_higher_or_lower_and_ends_at_once(self):
        nodes = self.fleet()
        clients = [Plain(node) for node in nodes]
        self.assertEqual(self.drain(nodes, "login", "bob"), 5)
        for limit in (9, 12):
            self.assertEqual(clients[2].ask("TALLY.LIMIT", "login", "bob", str(limit), "3600000"), "OK")
            self.until(lambda: [client.ask("TALLY.TAKE", "login", "bob") for client in clients] and self.admitted(nodes, "login") >= limit)
            self.assertEqual(self.drain(nodes, "login", "bob"), 0)
            self.assertEqual(self.admitted(nodes, "login"), limit)
        self.assertEqual(Plain(nodes[1]).ask("TALLY.LIFT", "login", "bob"), 1)
        self.until(lambda: [client.ask("TALLY.TAKE", "login", "bob")[1] for client in clients] == [5] * 3)
        self.assertEqual(self.drain(nodes, "login", "bob"), 0)
        self.assertEqual(self.admitted(nodes, "login"), 12)

    def test_when_a_lower_limit_by_order_has_ended_the_rules_counts_at_once(self):
        nodes = self.fleet()
        clients = [Plain(node) for node in nodes]
        self.assertEqual(clients[0].ask("TALLY.LIMIT", "login", "bob", "2", "1500"), "OK")
        self.assertLessEqual(self.drain(nodes, "login", "bob"), 5)  # 2, but where it has ended meanwhile
        self.until(lambda: [client.ask("TALLY.TAKE", "login", "bob") for client in clients] and self.admitted(nodes, "login") >= 5)
        self.assertEqual(self.drain(nodes, "login", "bob"), 0)
        self.assertEqual(self.admitted(nodes, "login"), 5)

    def test_a_node_that_ends_gives_back_what_it_holds_and_one_that_is_killed_does_not_cost_the_rest(self):
        nodes = self.fleet()
        self.take(nodes, "strict", "bob", 10)
        # A grant that is on its way to a node that ends is lost to the window.
        self.until(lambda: self.metric(nodes[0], "tallyd_books_grants_total") == self.metric(nodes[0], "tallyd_books_reports_total"))
        self.assertEqual(nodes[0].end(), 0)
        self.assertEqual(self.drain(nodes[1:], "strict", "bob"), 70)

    def test_what_is_used_steadily_is_granted_ahead_of_the_next_fixed_window(self):
        nodes = self.fleet(1, rules=[rule("tick", 1_000_000, window="1s")])
        client = Plain(nodes[0])
        # Each report is answered by a grant, and by one more near the end of a window.
        counts = ["tallyd_books_grants_total", "tallyd_books_reports_total"]
        self.until(lambda: client.ask("TALLY.TAKE", "tick", "bob") and self.metric(nodes[0], counts[0]) > self.metric(nodes[0], counts[1]))
        redis = Plain(self.redis)
        self.assertGreaterEqual(len([name for name in redis.ask("KEYS", "*") if name.count(b":") == 3]), 1)

    def test_names_and_versions_are_as_the_docs_say(self):
        self.fleet(books=f"unix:{self.redis.socket}?prefix=edge:1&db=3")
        redis = Plain(self.redis)
        self.assertEqual(redis.ask("SELECT", "3"), "OK")
        self.until(lambda: len(redis.ask("KEYS", "*")) >= 2)
        self.assertEqual({name.decode() for name in redis.ask("KEYS", "*")}, {"edge:1:{0}:generation", "edge:1:{0}:lives"})


    def test_books_of_another_version_are_refused_by_name(self):
        ports = free_ports(1)
        for name in ("login", "feed"):  # a window, a bucket
            nodes = self.fleet(1, ports=ports)
            self.take(nodes, name, "bob", 1)
            redis = Plain(self.redis)
            [book] = [book for book in redis.ask("KEYS", "tally:{0}:*") if not book.endswith((b":generation", b":lives"))]
            self.assertEqual(redis.ask("SET", book, b"\x85\xa7version\x01"), "OK")
            client = Plain(nodes[0])
            said = f"{book.decode()} has books of version 1, not 2"
            self.until(lambda: client.ask("TALLY.TAKE", name, "bob") and said in nodes[0].text(), nodes[0].text())
            nodes[0].end()
            redis.ask("FLUSHALL")

    def test_a_redis_that_evicts_is_warned_of(self):
        self.redis.end()
        self.redis = self.server("small", settings=[("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-lru")])
        nodes = self.fleet(1)
        self.until(lambda: "maxmemory_policy=allkeys-lru" in nodes[0].text(), nodes[0].text())

    def test_a_running_fleet_moves_from_its_peers_to_redis_grows_there_and_moves_back(self):
        rules = [rule("tick", 10, window="1s"), *(each for each in RULES if each["name"] in ("strict", "sliding", "feed"))]
        timing = {"sync_interval": "20ms", "isolation_after": "1s", "lease": "1s"}
        ports = free_ports(3)
        peers = [f"127.0.0.1:{port}" for port in ports]
        nodes = self.fleet(rules=rules, ports=ports, books="peers", isolation_after="1s", lease="1s")
        spent = [("strict", 100), ("sliding", 100), ("feed", 50)]
        for name, limit in spent:
            self.assertEqual(self.drain(nodes, name, "bob"), limit)
        clients = [Plain(node) for node in nodes]
        books = f"unix:{self.redis.socket}"
        lists = [{"roster_version": 1, "peers": peers}, {"roster_version": 2, "peers": peers, "books": books}, {"roster_version": 3, "peers": peers, "books": books, "size": 4},
                 {"roster_version": 4, "peers": peers}]
        for before, after in zip(lists, lists[1:]):
            self.config = self.small(rules=rules, cluster={**timing, **after, "previous": before})
            for client in clients:
                self.assertEqual(client.ask("TALLY.RELOAD"), "OK")
            self.until(lambda: all(self.metric(node, "tallyd_roster_settled") == 1 for node in nodes), nodes[0].text())
            self.until(lambda: (self.owner_of(clients[0], "tick", "eve") == b"(books)") == ("books" in after))
            for _ in range(3):  # of each second's window no more than its limit, and in the end all of it
                second, admitted = int(time.time()), 0
                while int(time.time()) == second:
                    admitted += sum(client.ask("TALLY.TAKE", "tick", "eve")[0] == 0 for client in clients)
                self.assertLessEqual(admitted, 20)
            # Lives that are new know that it was granted, not that it was used: refused, whatever the reason.
            for name, _ in spent:
                self.assertEqual([client.ask("TALLY.TAKE", name, "bob")[0] for client in clients], [1] * 3, name)
        self.assertEqual([node.end() for node in nodes], [0] * 3)

    def owner_of(self, client, name, key):
        client.ask("TALLY.TAKE", name, key)
        return self.told(client, name, key)["owner"]

    def test_metrics_are_what_promtool_wants_and_count_calls(self):
        nodes = self.fleet()
        self.assertEqual(self.drain(nodes, "login", "bob"), 5)
        text = urllib.request.urlopen(f"http://{nodes[0].http()}/metrics", timeout=WAIT_S).read()
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=WAIT_S, check=False)
        self.assertEqual((checked.returncode, checked.stdout), (0, b""))
        self.assertEqual(self.metric(nodes[0], "tallyd_books_up"), 1)
        self.assertGreaterEqual(self.metric(nodes[0], "tallyd_books_reports_total"), 1)
        self.assertGreaterEqual(self.metric(nodes[0], "tallyd_books_call_duration_seconds_count"), self.metric(nodes[0], "tallyd_books_grants_total") / 300)
        self.redis.end()
        self.until(lambda: self.metric(nodes[0], "tallyd_books_up") == 0)


class Crowd(Books):
    def test_two_daemons_of_ten_may_use_all_of_it(self):
        nodes = self.fleet(10, rules=[rule("strict", 1000), rule("api", 1000, max_overcount="10%")])
        for name, most in (("strict", 1000), ("api", 1100)):
            admitted = self.drain(nodes[:2], name, "bob")
            self.assertTrue(990 <= admitted <= most, f"{name}: {admitted}")

    def test_twenty_daemons_at_once_admit_exactly_the_limit(self):
        nodes = self.fleet(20)
        admitted, start = [], threading.Barrier(len(nodes), timeout=WAIT_S)

        def ask(node):
            start.wait()
            admitted.append(self.drain([node], "strict", "bob"))

        askers = [threading.Thread(target=ask, args=[node], daemon=True) for node in nodes]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join(WAIT_S)
        self.assertEqual((len(admitted), sum(admitted)), (20, 100))


if __name__ == "__main__":
    processes.main(sys.argv)
