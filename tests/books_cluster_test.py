#!/usr/bin/env python3
"""A fleet whose books are in a Redis Cluster, and what the tool sees of them: books_cluster_test.py TALLYD TALLY [TEST...]"""
import json
import sys

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import books_process_test  # noqa: E402
import processes  # noqa: E402
from processes import PROGRAMS, Plain, run  # noqa: E402
from redis_cluster import RedisCluster, slot_of  # noqa: E402

TAGS = 64  # kBooksTags
KEYS = [f"key-{i}" for i in range(24)]


class Cluster(books_process_test.Books):
    def server(self, *_, **__):
        return None  # of its own none

    def begin(self, n=3, isolation_after="1s", rules=None, **more):
        self.cluster = RedisCluster(self, **more)
        self.nodes = self.fleet(n, books=self.cluster.url(self.cluster.password), isolation_after=isolation_after, rules=rules)
        self.until(self.all_up, self.nodes[0].text())
        self.until(lambda: self.tags_there() == TAGS)  # each was asked for
        return self.nodes

    def all_up(self):
        return all(self.metric(node, "tallyd_books_up") == 1 for node in self.nodes)

    def names_of(self, member, pattern):
        return [name.decode() for name in member.ask("KEYS", pattern)]

    def tags_there(self):
        return sum(len(self.names_of(one, "tally:{*}:generation")) for one in self.cluster.masters)

    def tag_of(self, rule, key):
        """What the names of a key's books begin with: known by those that appear when it is taken from."""
        before = {name for one in self.alive() for name in self.names_of(one, "tally:{*}:*:*")}
        self.take(self.nodes[:1], rule, key, 1)
        fresh = {name for one in self.alive() for name in self.names_of(one, "tally:{*}:*:*")} - before
        self.assertEqual(len(fresh), 1, fresh)
        return fresh.pop().split("}")[0] + "}"

    def generations(self):
        """Of how many tags, by master's port."""
        listed = run(PROGRAMS["tally"], "books", self.cluster.url(self.cluster.password), "--json")
        self.assertEqual(listed.returncode, 0, listed.stderr)
        return {int(one["server"].split(":")[1]): one["generations"] for one in json.loads(listed.stdout)["servers"]}

    def alive(self):
        return [one for one in self.cluster.masters + self.cluster.replicas if one.server.process.poll() is None and one.ask("ROLE")[0] == b"master"]

    def redirects(self, kind):
        return sum(self.metric(node, f'tallyd_books_redirects_total{{kind="{kind}"}}') for node in self.nodes)


class Sharing(Cluster):
    def test_limits_are_exact_over_three_daemons_and_all_masters(self):
        nodes = self.begin()
        for key in KEYS:
            self.assertEqual(self.drain(nodes, "login", key), 5, key)
        self.assertEqual(self.drain(nodes, "strict", "bob"), 100)
        self.assertEqual(self.drain(nodes, "sliding", "bob"), 100)
        for one in self.cluster.masters:  # each has some of them, and of nothing but its own slots
            self.assertGreater(len(self.names_of(one, "tally:{*}:*:*")), 0)
            self.assertGreater(one.calls("evalsha"), 0)
            self.assertNotIn("errorstat_CROSSSLOT", one.info("errorstats"))
        self.assertEqual(self.losses(nodes), [0, 0, 0])
        self.assertEqual([node.end() for node in nodes], [0] * 3)

    def test_a_password_is_said_to_all_masters_and_never_shown(self):
        nodes = self.begin(1, password="s3cr3t")
        for key in KEYS[:8]:
            self.assertEqual(self.drain(nodes, "login", key), 5, key)
        self.assertNotIn("s3cr3t", nodes[0].text())
        listed = run(PROGRAMS["tally"], "books", self.cluster.url("wrong"))
        self.assertEqual(listed.returncode, 3)
        self.assertIn("WRONGPASS", listed.stderr)
        self.assertNotIn("s3cr3t", run(PROGRAMS["tally"], "books", self.cluster.url("s3cr3t")).stdout)

    def test_what_is_no_cluster_is_said(self):
        alone = books_process_test.Redis(self.folder, "alone", port=processes.free_ports(1)[0])
        self.addCleanup(alone.end)
        nodes = self.fleet(1, books=f"redis-cluster://127.0.0.1:{alone.port}")
        self.until(lambda: "cluster support disabled" in nodes[0].text(), nodes[0].text())
        self.assertEqual(nodes[0].end(), 0)


class Moving(Cluster):
    def test_a_slot_moves_while_daemons_ask_and_nothing_is_admitted_twice(self):
        nodes = self.begin()
        tag = self.tag_of("strict", "bob")
        slot = slot_of(tag)
        self.take(nodes, "strict", "bob", 10)  # and the one that told the tag
        source, target = self.cluster.begin_move(slot)
        self.cluster.move_names(slot, source, target)
        client = Plain(nodes[0])
        self.until(lambda: client.ask("TALLY.TAKE", "strict", "bob") and target.calls("asking") > 0)
        self.until(lambda: self.redirects("ask") > 0)
        self.cluster.end_move(slot, target)
        self.until(lambda: self.redirects("moved") >= 1, nodes[0].text())
        self.drain(nodes, "strict", "bob")
        self.assertEqual(self.admitted(nodes, "strict"), 100)
        self.assertEqual(self.names_of(source, tag + ":*"), [])
        self.assertGreater(len(self.names_of(target, tag + ":*")), 1)
        for port, tags in self.generations().items():  # one tag has begun anew
            self.assertEqual(len(tags), 2 if port == target.port else 1, tags)
        for key in KEYS:
            self.assertEqual(self.drain(nodes, "login", key), 5, key)
        self.assertEqual([one.info("errorstats").get("errorstat_CROSSSLOT") for one in self.cluster.masters], [None] * 3)


class Away(Cluster):
    def test_a_replica_is_promoted_and_other_keys_go_on(self):
        nodes = self.begin(replicas=True)
        tag = self.tag_of("strict", "bob")
        self.take(nodes, "strict", "bob", 10)
        lost = self.cluster.master_of(slot_of(tag))
        replica = self.cluster.replicas[self.cluster.masters.index(lost)]
        replica.ask("READONLY")
        self.until(lambda: len(self.names_of(replica, tag + ":*")) == 2)
        lost.server.end()
        self.until(lambda: not self.all_up())
        served = 0
        for key in KEYS:  # of those that the other masters keep all can be used at once
            served += Plain(nodes[0]).ask("TALLY.TAKE", "login", key)[0] == 0
        self.assertGreater(served, 0)
        self.drain(nodes, "strict", "bob")
        self.assertEqual(self.admitted(nodes, "strict"), 100)
        self.assertEqual(replica.ask("ROLE")[0], b"master")
        self.until(self.all_up, nodes[0].text())
        self.assertEqual(self.losses(nodes), [1, 1, 1])
        for port, tags in self.generations().items():  # nothing was lost to the others
            self.assertEqual(list(tags), ["2" if port == replica.port else "1"])

    def test_a_master_that_stays_away_isolates_its_keys_and_no_others(self):
        nodes = self.begin()
        kept, away = [], []
        lost = self.cluster.masters[1]
        for key in KEYS:
            tag = self.tag_of("strict", key)
            (away if self.cluster.master_of(slot_of(tag)) is lost else kept).append(key)
        self.assertTrue(kept and away, (kept, away))
        lost.server.end()
        clients = [Plain(node) for node in nodes]
        for key in away:  # 3: isolated. The policy is to admit nothing but what is held
            self.until(lambda of=key: all(client.ask("TALLY.TAKE", "strict", of)[5] == 3 for client in clients))
        for key in kept:
            self.assertEqual(self.drain(nodes, "strict", key), 99, key)
        self.assertEqual(self.losses(nodes), [0, 0, 0])


    def test_where_redis_serves_all_slots_or_none_all_keys_are_isolated_until_it_serves_again(self):
        nodes = self.begin(settings=[("cluster-require-full-coverage", "yes")])
        self.cluster.masters[1].server.end()
        self.until(lambda: not any(self.cluster.well(one) for one in self.alive()))
        clients = [Plain(node) for node in nodes]
        for key in KEYS:
            self.until(lambda of=key: all(client.ask("TALLY.TAKE", "login", of)[5] == 3 for client in clients))
        self.assertGreater(self.redirects("clusterdown"), 0)
        for one in self.alive():
            self.assertEqual(one.ask("CONFIG", "SET", "cluster-require-full-coverage", "no"), "OK")
        self.until(lambda: any(client.ask("TALLY.TAKE", "login", key)[0] == 0 for client in clients for key in KEYS))
        self.assertEqual(self.losses(nodes), [0, 0, 0])


class Central(Cluster):
    """Rules of which each decision is one of the master that has the key."""

    def begin(self):
        return super().begin(rules=[books_process_test.rule("login", 5, mode="central", wait="10s"), books_process_test.rule("leased", 10)])

    def ask(self, key):
        """Of each node in turn, until nobody gets any more: the answers."""
        return [client.ask("TALLY.TAKE", "login", key) for _ in range(3) for client in [Plain(node) for node in self.nodes]]

    def tag_of_count(self, key):
        before = self.counts()
        self.assertEqual(Plain(self.nodes[0]).ask("TALLY.TAKE", "login", key)[0], 0)
        fresh = self.counts() - before
        self.assertEqual(len(fresh), 1, fresh)
        return fresh.pop().split("}")[0] + "}"

    def counts(self):
        return {name for one in self.alive() for name in self.names_of(one, "tally:{*}:c1:*")}

    def test_limits_are_exact_on_all_masters_beside_leased_ones(self):
        self.begin()
        for key in KEYS:
            self.assertEqual([answer[0] for answer in self.ask(key)], [0] * 5 + [1] * 4, key)
        for one in self.cluster.masters:
            self.assertGreater(len(self.names_of(one, "tally:{*}:c1:*")), 0)
        client = Plain(self.nodes[0])
        self.assertEqual(client.ask("TALLY.GIVE", "login", KEYS[0], "2")[2], 2)
        self.assertEqual(client.ask("TALLY.RESET", "login", KEYS[1]), "OK")
        self.assertEqual([sum(answer[0] == 0 for answer in self.ask(key)) for key in KEYS[:3]], [2, 5, 0])
        self.assertEqual(client.ask("TALLY.TAKEALL", "login", "eve", "5", "leased", "eve", "11")[:2], [1, 1])
        self.assertEqual(self.drain(self.nodes, "leased", "eve"), 10)
        self.until(lambda: client.ask("TALLY.PEEK", "login", "eve")[2] == 5)

    def test_a_slot_that_moves_takes_its_counts_along(self):
        self.begin()
        slot = slot_of(self.tag_of_count("bob"))
        source, target = self.cluster.begin_move(slot)
        self.cluster.move_names(slot, source, target)
        self.assertEqual(Plain(self.nodes[1]).ask("TALLY.TAKE", "login", "bob")[:3], [0, 5, 3])
        self.assertGreater(self.redirects("ask"), 0)
        self.cluster.end_move(slot, target)
        self.assertEqual([answer[0] for answer in self.ask("bob")], [0] * 3 + [1] * 6)
        self.assertGreater(self.redirects("moved"), 0)

    def test_where_a_master_is_away_only_its_keys_go_by_their_policy(self):
        self.begin()
        lost = self.cluster.masters[1]
        away = {key for key in KEYS if self.cluster.master_of(slot_of(self.tag_of_count(key))) is lost}
        self.assertTrue(0 < len(away) < len(KEYS), away)
        lost.server.end()
        self.until(lambda: not any(self.metric(node, "tallyd_books_up") for node in self.nodes))
        for key in KEYS:
            answers = self.ask(key)
            if key in away:
                self.assertEqual({answer[5] for answer in answers}, {3}, key)
            else:
                self.assertEqual(sum(answer[0] == 0 for answer in answers), 4, key)


class Tool(Cluster):
    def test_what_is_there_is_listed_and_removed(self):
        nodes = self.begin(1)
        for key in KEYS:
            self.take(nodes, "login", key, 1)
        self.take(nodes, "feed", "bob", 1)
        config = json.loads(self.config.read_text())
        config["cluster"]["bind"] = config["cluster"]["peers"][0]
        listed = run(PROGRAMS["tally"], "books", "-c", self.write(config, "whole.json"), "--json")
        self.assertEqual((listed.returncode, listed.stderr), (0, ""))
        servers = json.loads(listed.stdout)["servers"]
        self.assertEqual({one["server"] for one in servers}, {f"127.0.0.1:{one.port}" for one in self.cluster.masters})
        self.assertEqual(sum(one["windows"] for one in servers), len(KEYS))
        self.assertEqual([sum(one[what] for one in servers) for what in ("buckets", "lives", "other")], [1, 1, 0])
        self.assertEqual(sum(sum(one["generations"].values()) for one in servers), TAGS)
        self.assertTrue(all(one["bytes"] > 0 for one in servers if one["windows"]))
        self.assertEqual(nodes[0].end(), 0)
        self.cluster.masters[0].ask("SET", "tallyx:{6}:generation", "another's")  # or sent elsewhere: the same to us
        url = self.cluster.url()
        asked = run(PROGRAMS["tally"], "books", url, "--remove")
        self.assertEqual(asked.returncode, 2)
        self.assertIn("--yes", asked.stderr)
        others = run(PROGRAMS["tally"], "books", url + "?prefix=other", "--remove", "--yes", "--json")
        self.assertEqual(json.loads(others.stdout), {"removed": 0})
        removed = run(PROGRAMS["tally"], "books", url, "--remove", "--yes", "--json")
        self.assertGreaterEqual(json.loads(removed.stdout)["removed"], len(KEYS) + 1 + TAGS + 1)
        self.assertEqual([self.names_of(one, "tally:*") for one in self.cluster.masters], [[]] * 3)
        table = run(PROGRAMS["tally"], "books", url).stdout.splitlines()
        self.assertEqual(table[0], "prefix tally")
        self.assertEqual(table[-1].split(), ["all", "0", "0", "0", "-", "0", "0", "0", "-"])


if __name__ == "__main__":
    processes.main(sys.argv)
