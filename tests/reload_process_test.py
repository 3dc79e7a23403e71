#!/usr/bin/env python3
"""Daemons that read their configuration again: reload_process_test.py TALLYD TALLY [TEST...]"""
import json
import signal
import sys
import threading
import time
import urllib.request

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from processes import DAY, PROGRAMS, WAIT_S, Case, Plain, free_ports, run  # noqa: E402


def fixed(name, limit, **more):
    return {"name": name, "limit": limit, "window": DAY, "algorithm": "fixed_window", "max_overcount": 0, "on_isolation": "closed",
            "wait": "10s", **more}


def metrics_of(node):
    text = urllib.request.urlopen(f"http://{node.http()}/metrics", timeout=WAIT_S).read().decode()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}


def taken(client, rule, key, n):
    return sum(client.ask("TALLY.TAKE", rule, key)[0] == 0 for _ in range(n))


class Reloading(Case):
    def until(self, what, said):
        end = time.monotonic() + WAIT_S
        while not what():
            self.assertLess(time.monotonic(), end, said)

    def tally(self, node, *words):
        return run(PROGRAMS["tally"], "-s", node.socket, *words)


class Alone(Reloading):
    def alone(self, rules, **more):
        self.small(rules=rules, **more)
        return self.start("-c", self.folder / "tallyd.json", "--listen-http", "127.0.0.1:0").ready()

    def test_rules_change_and_what_was_counted_stays(self):
        node = self.alone([fixed("login", 5), fixed("old", 3)])
        client = Plain(node)
        self.assertEqual((taken(client, "login", "bob", 3), taken(client, "old", "bob", 4)), (3, 3))
        self.small(rules=[fixed("new", 2), fixed("login", 8)])
        self.assertEqual(client.ask("TALLY.RELOAD"), "OK")
        self.assertEqual((taken(client, "login", "bob", 9), taken(client, "new", "bob", 3)), (5, 2))
        self.assertIn("no rule", str(client.ask("TALLY.TAKE", "old", "bob")))
        values = metrics_of(node)
        self.assertEqual(values['tallyd_decisions_total{rule="old",outcome="admitted"}'], 3)  # counters do not vanish
        self.assertEqual(values['tallyd_decisions_total{rule="login",outcome="admitted"}'], 8)
        self.assertNotIn('tallyd_overcount_promised_ratio{rule="old"}', values)
        self.small(rules=[fixed("old", 4)])
        done = self.tally(node, "reload")
        self.assertEqual((done.returncode, done.stdout), (0, "the configuration was read again\n"), done)
        self.assertEqual(taken(client, "old", "bob", 4), 1)  # it was away, not forgotten
        self.assertEqual(node.end(), 0)

    def test_what_came_before_is_answered_by_the_rules_before_and_what_comes_after_by_the_new(self):
        node = self.alone([fixed("login", 1)])
        self.small(rules=[fixed("login", 3)])
        client = Plain(node)
        take = ("TALLY.TAKE", "login", "bob")
        client.send(take, take, ("TALLY.RELOAD",), take, take, take)
        replies = [client.next() for _ in range(6)]
        self.assertEqual(replies[2], "OK")
        self.assertEqual([(reply[0], reply[1]) for i, reply in enumerate(replies) if i != 2], [(0, 1), (1, 1), (0, 3), (0, 3), (1, 3)])
        self.assertEqual(node.end(), 0)

    def test_anything_wrong_changes_nothing_and_says_where(self):
        node = self.alone([fixed("login", 5)])
        client = Plain(node)
        path = self.folder / "tallyd.json"

        def refused(config, *said):
            self.write(config)
            done = self.tally(node, "reload")
            self.assertEqual(done.returncode, 2, done)
            for words in said:
                self.assertRegex(done.stderr + node.text(), words)
            self.assertIn("nothing was changed", done.stderr)
            self.assertEqual(metrics_of(node)["tallyd_config_last_reload_successful"], 0)
            self.assertEqual(client.ask("TALLY.PEEK", "login", "bob")[1], 5)

        good = json.loads(path.read_text())
        refused("{", r"tallyd\.json:1:\d+")
        refused(dict(good, rules=[fixed("login", 7), fixed("login", 7)]), r"tallyd\.json:1:\d+: rules\[1\]\.name")
        refused(dict(good, rules=[dict(fixed("login", 7), window="1h")]),
                r'tallyd\.json:1:\d+: rules\[0\]\.window: is 366d for "login" since this daemon started')
        refused(dict(good, rules=[fixed("login", 7)], workers=3, table={"keys": 8192}), r"tallyd\.json:1:\d+: workers: was changed",
                r"tallyd\.json:1:\d+: table\.keys: was changed", r"\(and 1 more errors: see the log\)")
        path.unlink()
        self.assertIn("cannot be read", self.tally(node, "reload").stderr)
        self.write(dict(good, rules=[fixed("login", 7)]))
        node.process.send_signal(signal.SIGHUP)
        self.until(lambda: metrics_of(node)["tallyd_config_last_reload_successful"] == 1, "not loaded")
        self.assertEqual(node.wait_for("RELOADING=1").wait_for("READY=1"), node)
        self.assertEqual(client.ask("TALLY.PEEK", "login", "bob")[1], 7)
        self.assertEqual(node.end(), 0)

    def test_many_at_once_are_all_answered(self):
        node = self.alone([fixed("login", 5)])
        reader = threading.Thread(target=node.wait_for, args=("STOPPING=1",))  # of what it notifies, as systemd would
        reader.start()
        clients = [Plain(node) for _ in range(20)]
        for client in clients:
            client.send(*[("TALLY.RELOAD",)] * 10)
        self.assertEqual({client.next() for client in clients for _ in range(10)}, {"OK"})
        gone = Plain(node)
        gone.send(("TALLY.RELOAD",))
        gone.connection.close()  # nobody waits for this one
        self.assertEqual(clients[0].ask("TALLY.RELOAD"), "OK")
        self.assertEqual(node.end(), 0)
        reader.join()


class Fleets(Reloading):
    def setUp(self):
        super().setUp()
        self.ports = free_ports(3)

    def config(self, rules, **cluster):
        peers = [f"127.0.0.1:{port}" for port in self.ports]
        self.small(rules=rules, cluster={"peers": peers, "sync_interval": "20ms", "isolation_after": "1h", **cluster})

    def fleet(self, rules, **cluster):
        self.config(rules, **cluster)
        nodes = [self.start("-c", self.folder / "tallyd.json", "--bind", f"127.0.0.1:{port}", "--listen-http", "127.0.0.1:0",
                            name=f"n{i}") for i, port in enumerate(self.ports)]
        return [node.ready() for node in nodes]

    def reload(self, node):
        done = self.tally(node, "reload")
        self.assertEqual(done.returncode, 0, done)

    def test_a_limit_is_shared_while_it_changes_host_by_host(self):
        nodes = self.fleet([fixed("login", 6)])
        clients = [Plain(node) for node in nodes]
        self.assertEqual(sum(taken(client, "login", "bob", 2) for client in clients), 6)
        self.config([fixed("login", 12)])
        for i, node in enumerate(nodes):
            self.reload(node)
            shared = sum(taken(client, "login", f"key{i}", 5) for client in clients)
            self.assertGreaterEqual(shared, 6)
            self.assertLessEqual(shared, 12)  # the larger of the two
        self.assertEqual(sum(taken(client, "login", "eve", 5) for client in clients), 12)
        self.until(lambda: all(metrics_of(node)["tallyd_config_last_reload_successful"] == 1 for node in nodes), "not all reloaded")
        self.assertEqual([node.end() for node in nodes], [0, 0, 0])

    def test_under_load_the_rules_and_the_sync_interval_change_and_the_bound_holds(self):
        nodes = self.fleet([fixed("login", 300), fixed("api", 1000000)])
        stop, admitted, asked = threading.Event(), [0] * 3, [0] * 3

        def load(i):
            client = Plain(nodes[i])
            while not stop.is_set():
                admitted[i] += client.ask("TALLY.TAKE", "login", "bob")[0] == 0
                client.ask("TALLY.TAKE", "api", f"key{asked[i] % 100}")
                asked[i] += 1

        threads = [threading.Thread(target=load, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        try:
            for limit, sync in ((300, "5ms"), (400, "50ms"), (400, "10ms"), (350, "20ms")):
                self.config([fixed("login", limit), fixed("api", 1000000), fixed(f"rule-{limit}", 1)], sync_interval=sync)
                for node in nodes:
                    self.reload(node)
                    counts = list(asked)
                    self.until(lambda counts=counts: all(now > then + 20 for now, then in zip(asked, counts)), "the load stands still")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertLessEqual(sum(admitted), 400)  # the largest of the limits that there were
        self.assertGreaterEqual(sum(admitted), 300)
        self.assertEqual([node.end() for node in nodes], [0, 0, 0])


if __name__ == "__main__":
    processes.main(sys.argv)
