#!/usr/bin/env python3
"""Overrides of keys in daemons: read from a file, read again on a reload, shared by a fleet and over regions.

Usage: overrides_process_test.py TALLYD TALLY [unittest arguments].
"""
import json
import os
import pathlib
import sys
import urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from processes import DAY, PROGRAMS, WAIT_S, Case, Plain, free_ports, main, run  # noqa: E402

EXEMPT, BLOCKED = 6, 5


def fixed(name, limit, **more):
    return {"name": name, "limit": limit, "window": DAY, "algorithm": "fixed_window", "max_overcount": 0, "on_isolation": "closed",
            "wait": "10s", **more}


def bucket(name, burst, **more):
    return {"name": name, "algorithm": "token_bucket", "rate": "1/d", "burst": burst, "max_overcount": 0, "on_isolation": "closed",
            "wait": "10s", **more}


def admitted(clients, rule, key, n):
    """Of n asked at each of them in turns."""
    return sum(client.ask("TALLY.TAKE", rule, key)[0] == 0 for _ in range(n) for client in clients)


class Alone(Case):
    def daemon(self, rules):
        return self.start("-c", self.small(rules=rules), "--listen-http", "127.0.0.1:0").ready()

    def test_a_file_of_overrides_is_read_at_the_start_and_again_on_a_reload_and_what_was_counted_stays(self):
        self.write({"vip": 8, "10.0.0.0/8": "blocked"}, "keys.json")
        daemon = self.daemon([fixed("login", 3, overrides={"ops*": "exempt"}, overrides_file="keys.json")])
        client = Plain(daemon)
        self.assertEqual((8, 3), (admitted([client], "login", "vip", 10), admitted([client], "login", "bob", 10)))
        self.assertEqual(BLOCKED, client.ask("TALLY.TAKE", "login", "10.9.9.9")[5])
        self.assertEqual(EXEMPT, client.ask("TALLY.TAKE", "login", "ops:1")[5])
        self.write({"vip": 9, "bob": 5}, "keys.json")
        self.assertEqual("OK", client.ask("TALLY.RELOAD"))
        self.assertEqual((1, 2), (admitted([client], "login", "vip", 10), admitted([client], "login", "bob", 10)))
        self.assertEqual(0, client.ask("TALLY.TAKE", "login", "10.9.9.9")[0])
        self.assertEqual(0, daemon.end())

    def test_anything_wrong_in_the_file_changes_nothing_and_is_named_with_its_place(self):
        path = self.write({"vip": 8}, "keys.json")
        daemon = self.daemon([fixed("login", 3, overrides_file="keys.json")])
        client = Plain(daemon)
        self.write('{\n  "vip": 9,\n  "bob": 0,\n  "10.0.0.1/8": "exempt"\n}', "keys.json")
        refused = run(PROGRAMS["tally"], "-s", daemon.socket, "reload")
        self.assertEqual(2, refused.returncode, refused)
        self.assertIn(f"{path}:3:10: bob: must be a whole number", refused.stderr)
        self.assertIn(f"{path}:4:3: 10.0.0.1/8: is no block of addresses", daemon.text())
        self.assertEqual(8, client.ask("TALLY.PEEK", "login", "vip")[1])
        path.unlink()
        self.assertIn("keys.json: cannot be read", run(PROGRAMS["tally"], "-s", daemon.socket, "reload").stderr)
        check = run(PROGRAMS["tally"], "check", self.folder / "tallyd.json")
        self.assertEqual(78, check.returncode)
        self.assertRegex(check.stderr, r"tallyd\.json:1:\d+: rules\[0\]\.overrides_file: .*keys\.json: cannot be read")
        self.assertEqual(0, daemon.end())

    def test_a_file_that_is_none_or_has_no_end_is_refused_and_the_daemon_goes_on(self):
        path = self.write({"vip": 8}, "keys.json")
        daemon = self.daemon([fixed("login", 3, overrides_file="keys.json")])
        client = Plain(daemon)
        for make, wrong in ((lambda: os.mkfifo(path), "keys.json: is not a regular file"),
                            (lambda: path.symlink_to("/dev/zero"), "keys.json: is not a regular file"),
                            (path.mkdir, "keys.json: is not a regular file"),
                            (lambda: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 40), "keys.json:1:1: larger than 16777216 bytes")):
            path.rmdir() if path.is_dir() else path.unlink()
            make()
            self.assertIn(wrong, run(PROGRAMS["tally"], "-s", daemon.socket, "reload").stderr)
            check = run(PROGRAMS["tally"], "check", self.folder / "tallyd.json")
            self.assertEqual(78, check.returncode)
            self.assertIn(wrong, check.stderr)
            self.assertEqual(8, client.ask("TALLY.PEEK", "login", "vip")[1])
        self.assertEqual(0, daemon.end())

    def test_a_hundred_thousand_overrides_are_served_and_read_again(self):
        self.write({f"user:{i}": i + 1 for i in range(100_000)}, "keys.json")
        daemon = self.daemon([fixed("login", 3, overrides_file="keys.json")])
        client = Plain(daemon)
        self.assertEqual([1, 50_000, 100_000, 3], [client.ask("TALLY.PEEK", "login", f"user:{i}")[1] for i in (0, 49_999, 99_999, 100_000)])
        self.write({f"user:{i}": i + 2 for i in range(100_000)}, "keys.json")
        self.assertEqual("OK", client.ask("TALLY.RELOAD"))
        self.assertEqual([2, 100_001, 3], [client.ask("TALLY.PEEK", "login", f"user:{i}")[1] for i in (0, 99_999, 100_000)])
        self.assertEqual(0, daemon.end())

    def test_outcomes_and_the_list_of_rules_show_them(self):
        match = {"domain": "edge", "descriptors": [{"key": "remote_address"}]}
        daemon = self.daemon([fixed("login", 3, overrides={"a": "exempt", "b": "blocked"}, match=match)])
        client = Plain(daemon)
        self.assertEqual((4, 0), (admitted([client], "login", "a", 4), admitted([client], "login", "b", 2)))
        text = urllib.request.urlopen(f"http://{daemon.http()}/metrics", timeout=WAIT_S).read().decode()
        self.assertIn('tallyd_decisions_total{rule="login",outcome="exempt"} 4\n', text)
        self.assertIn('tallyd_decisions_total{rule="login",outcome="blocked"} 2\n', text)
        self.assertEqual((4, 2), (client.stats()["exempt"], client.stats()["blocked"]))
        tally = lambda *words: run(PROGRAMS["tally"], "-s", daemon.socket, "--json", *words)  # noqa: E731
        rules = json.loads(tally("rules").stdout)
        self.assertEqual((2, "edge: remote_address"), (rules["login"]["overrides"], rules["login"]["match"]))
        blocked = tally("take", "login", "b")
        self.assertEqual((1, "blocked"), (blocked.returncode, json.loads(blocked.stdout)["reason"]))
        explained = json.loads(tally("explain", "login", "b").stdout)
        self.assertEqual(("b", 0, "blocked by an override of the rule"), (explained["override"], explained["bound"], explained["reason"]))
        self.assertEqual(0, daemon.end())


class Fleets(Case):
    RULES = [fixed("login", 5, overrides={"vip": 40, "few": 2, "ops*": "exempt", "10.0.0.0/8": "blocked"}),
             bucket("feed", 5, overrides={"vip": {"rate": "2/d", "burst": 40}, "few": {"rate": "1/d", "burst": 2}})]

    def fleet(self, rules, n=3, **more):
        ports = free_ports(n)
        peers = [f"127.0.0.1:{port}" for port in ports]
        config = self.small(rules=rules, cluster={"peers": peers, "sync_interval": "20ms", "isolation_after": "1h", **more})
        return [node.ready() for node in [self.start("-c", config, "--bind", peer, name=f"n{i}") for i, peer in enumerate(peers)]]

    def test_three_daemons_share_the_limit_of_an_override_to_the_last_request(self):
        nodes = self.fleet(self.RULES)
        clients = [Plain(node) for node in nodes]
        for rule in ("login", "feed"):
            for key, limit in (("vip", 40), ("few", 2), ("bob", 5)):
                with self.subTest(rule=rule, key=key):
                    self.assertEqual(limit, admitted(clients, rule, key, 20))
        self.assertEqual(60, admitted(clients, "login", "ops:1", 20))
        self.assertEqual(0, admitted(clients, "login", "10.1.2.3", 20))
        explained = clients[0].ask("TALLY.EXPLAIN", "login", "vip")
        self.assertEqual(40, explained[explained.index(b"bound") + 1])
        self.assertEqual([0, 0, 0], [node.end() for node in nodes])

    def test_an_override_that_a_reload_changes_is_shared_by_the_new_limit_or_less(self):
        nodes = self.fleet(self.RULES)
        clients = [Plain(node) for node in nodes]
        self.assertEqual(40, admitted(clients, "login", "vip", 20))
        path = self.folder / "tallyd.json"
        config = json.loads(path.read_text())
        config["rules"][0]["overrides"] = {"eve": 30, "vip": 50}
        self.write(config)
        for client in clients:
            self.assertEqual("OK", client.ask("TALLY.RELOAD"))
        self.assertEqual(30, admitted(clients, "login", "eve", 20))
        self.assertEqual(5, admitted(clients, "login", "few", 20))
        more = admitted(clients, "login", "vip", 20)  # a higher one begins with the next window
        self.assertLessEqual(more, 10)
        self.assertEqual([0, 0, 0], [node.end() for node in nodes])


class Regions(Case):
    def test_two_regions_share_the_limit_of_an_override(self):
        ports = free_ports(3)
        world, *regions = [f"127.0.0.1:{port}" for port in ports]
        pace = {"sync_interval": "20ms", "isolation_after": "1h"}
        nodes = []
        for name, cluster in (("world", {"aggregators": [world], "bind": world}),
                              *((f"r{i}", {"aggregators": [own], "bind": own, "upstream": [world]}) for i, own in enumerate(regions))):
            config = self.write({"node": {"state_dir": str(self.folder / name)}, "table": {"keys": 4096}, "workers": 1, "rules": [Fleets.RULES[0], {**Fleets.RULES[1], "wait": "1s"}],
                                 "cluster": {**cluster, **pace}}, f"{name}.json")
            nodes.append(self.start("-c", config, name=name))
        clients = [Plain(node.ready()) for node in nodes][1:]
        for key, limit in (("vip", 40), ("few", 2), ("bob", 5)):
            with self.subTest(key=key):
                self.assertEqual(limit, admitted(clients, "login", key, 30))
        taken = self.until_denied(clients, "feed", "vip")
        self.assertLessEqual(taken, 40)
        self.assertGreater(taken, 30)  # of a bucket parts of tokens may be left in regions; by the rule it would be 5
        self.assertEqual([0, 0, 0], [node.end() for node in nodes])

    def until_denied(self, clients, rule, key):
        """How many were admitted before, in turns."""
        for taken in range(1000):
            if clients[taken % len(clients)].ask("TALLY.TAKE", rule, key)[0] != 0:
                return taken
        raise AssertionError("nothing is denied")


if __name__ == "__main__":
    main(sys.argv)
