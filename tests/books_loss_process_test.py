#!/usr/bin/env python3
"""A fleet whose Redis forgets, is away, or is replaced: books_loss_process_test.py TALLYD TALLY [TEST...]"""
import signal
import sys
import time

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from books_process_test import Books, rule  # noqa: E402
from processes import Plain, free_ports  # noqa: E402


class Loss(Books):
    """Whatever Redis forgets: of one limit no more than that is admitted, and in the end all of it."""

    def test_a_flush_is_seen_and_what_nodes_hold_is_counted_again(self):
        nodes = self.fleet()
        for name in ("strict", "sliding"):
            self.take(nodes, name, "bob", 10)
        self.assertEqual(Plain(self.redis).ask("FLUSHALL"), "OK")
        self.assertEqual(self.drain(nodes, "strict", "bob"), 70)
        self.assertEqual(self.drain(nodes, "sliding", "bob"), 70)
        self.assertEqual(self.losses(nodes), [1, 1, 1])

    def test_a_bucket_that_was_forgotten_is_empty(self):
        nodes = self.fleet()
        self.take(nodes, "feed", "bob", 10)
        self.assertEqual(Plain(self.redis).ask("FLUSHALL"), "OK")
        self.until(lambda: self.losses(nodes) == [1, 1, 1])
        self.assertEqual(self.admitted(nodes, "feed"), 30)
        self.assertLessEqual(self.drain(nodes, "feed", "bob"), 20)  # held since before; nothing new

    def test_a_server_that_was_killed_comes_back_empty(self):
        nodes = self.fleet()
        self.take(nodes, "strict", "bob", 10)
        self.redis.end()
        self.until(lambda: all(Plain(node).ask("TALLY.TAKE", "strict", "bob")[5] in (2, 3) for node in nodes))
        self.redis = self.server()
        self.drain(nodes, "strict", "bob")
        self.assertEqual(self.admitted(nodes, "strict"), 100)  # some of it while nobody was there: what was held

    def test_a_server_that_was_killed_comes_back_with_its_log(self):
        self.redis.end()
        kept = [("appendonly", "yes"), ("appendfsync", "always")]
        self.redis = self.server("kept", settings=kept)
        nodes = self.fleet()
        self.take(nodes, "strict", "bob", 10)
        self.redis.end()
        self.redis = self.server("kept", settings=kept)
        self.assertEqual(self.drain(nodes, "strict", "bob"), 70)
        self.assertEqual(self.losses(nodes), [1, 1, 1])

    def test_of_a_daemon_that_dies_in_the_quiet_time_what_it_had_spent_is_granted_once_more_and_no_more(self):
        nodes = self.fleet()
        self.take(nodes, "strict", "bob", 10)
        nodes[2].process.send_signal(signal.SIGSTOP)  # so that it cannot tell what it had
        self.assertEqual(Plain(self.redis).ask("FLUSHALL"), "OK")
        self.until(lambda: self.losses(nodes[:2]) == [1, 1])
        nodes[2].end(signal.SIGKILL)
        admitted = 30 + self.drain(nodes[:2], "strict", "bob")
        self.assertTrue(100 <= admitted <= 110, admitted)

    def flush_while_stopped(self, nodes):
        """So that somebody else begins the books again."""
        redis = Plain(self.redis)
        for node in nodes:
            node.process.send_signal(signal.SIGSTOP)
        redis.ask("FLUSHALL")
        return redis

    def go_on_when_begun(self, redis, stopped):
        self.until(lambda: redis.ask("EXISTS", "tally:{0}:generation") == 1)
        for node in stopped:
            node.process.send_signal(signal.SIGCONT)

    def test_a_node_that_begins_as_redis_forgets_does_not_hide_it_from_the_others(self):
        nodes = self.fleet()
        nodes[2].end()
        self.take(nodes[:2], "strict", "bob", 30)
        redis = self.flush_while_stopped(nodes[:2])
        nodes[2] = self.node(2)
        self.go_on_when_begun(redis, nodes[:2])
        nodes[2].ready()
        self.until(lambda: self.losses(nodes[:2]) == [1, 1])
        self.assertEqual(self.drain(nodes, "strict", "bob"), 40)

    def test_books_that_are_lost_again_before_all_know_of_the_first_time_are_seen_to_be(self):
        nodes = self.fleet(2)
        self.take(nodes[:1], "strict", "bob", 60)
        redis = self.flush_while_stopped(nodes[1:])
        self.until(lambda: self.losses(nodes[:1]) == [1])
        nodes[0].process.send_signal(signal.SIGSTOP)
        redis.ask("FLUSHALL")
        nodes[1].process.send_signal(signal.SIGCONT)
        self.go_on_when_begun(redis, nodes[:1])
        self.assertEqual(self.drain(nodes, "strict", "bob"), 40)

    def test_the_window_before_is_told_anew(self):
        length = 12
        nodes = self.fleet(2, rules=[rule("slide", 100, algorithm="sliding_window", window=f"{length}s", wait="200ms")])
        for _ in range(3):
            self.until(lambda: time.time() % length > length - 3)
            self.take(nodes[:1], "slide", f"bob{_}", 90)
            window = time.time() // length
            self.until(lambda: time.time() % length > 1 and time.time() // length > window)
            before = self.losses(nodes)
            Plain(self.redis).ask("FLUSHALL")
            self.until(lambda: all(now > was for now, was in zip(self.losses(nodes), before)))
            admitted = self.drain(nodes[1:], "slide", f"bob{_}")
            into = time.time() - (window + 1) * length
            if into < length:  # a machine that stands still may take longer
                self.assertLessEqual(admitted, 100 - int(90 * (1 - into / length)))
                return
        self.fail("the machine is too slow for windows of 12 s")

    def test_a_script_that_was_forgotten_is_said_again(self):
        nodes = self.fleet()
        self.take(nodes, "strict", "bob", 10)
        self.assertEqual(Plain(self.redis).ask("SCRIPT", "FLUSH"), "OK")
        self.assertEqual(self.drain(nodes, "strict", "bob"), 70)
        self.assertEqual(self.losses(nodes), [0, 0, 0])


class Away(Books):
    def test_nodes_begin_without_it_and_find_it_when_it_comes(self):
        self.redis.end()
        nodes = self.fleet()
        reasons = {Plain(node).ask("TALLY.TAKE", "login", "bob")[5] for node in nodes}
        self.assertLessEqual(reasons, {2, 3})
        self.assertEqual(Plain(nodes[0]).ask("TALLY.TAKE", "api", "bob")[0], 0)  # its floor
        self.redis = self.server()
        self.assertEqual(self.drain(nodes, "login", "bob"), 5)

    def test_what_was_spent_meanwhile_is_charged_when_it_is_back(self):
        nodes = self.fleet(isolation_after="2s")  # so that none goes on alone before, however slow the machine is
        clients = [Plain(node) for node in nodes]
        self.take(nodes, "api", "bob", 100)
        self.redis.process.send_signal(signal.SIGSTOP)
        # Cut off, each goes on by its share.
        self.until(lambda: all(client.ask("TALLY.TAKE", "api", "bob")[5] == 3 for client in clients))
        spent = self.admitted(nodes, "api")
        least = min(self.admitted([node], "api") for node in nodes)
        self.redis.process.send_signal(signal.SIGCONT)
        self.drain(nodes, "api", "bob")
        self.assertGreater(least, 100)
        # Whoever is heard first may still get what the others are not known to have spent; what it had spent itself was charged.
        self.assertLessEqual(self.admitted(nodes, "api") - spent, 1000 - least - 200)
        self.assertEqual(self.drain(nodes, "api", "bob"), 0)

    def test_what_is_no_redis_is_said_and_tried_again(self):
        nodes = self.fleet(1, books=f"redis://127.0.0.1:{free_ports(1)[0]}")
        self.until(lambda: "Connection refused" in nodes[0].text(), nodes[0].text())
        self.assertEqual(nodes[0].text().count("cannot be reached"), 1)
        self.until(lambda: self.metric(nodes[0], "tallyd_books_reconnects_total") >= 3)
        self.assertEqual(nodes[0].end(), 0)

    def test_a_password_is_said_and_never_shown(self):
        self.redis.end()
        port = free_ports(1)[0]
        self.redis = self.server("locked", port=port, settings=[("requirepass", "s3cr:t/")])
        nodes = self.fleet(1, books=f"redis://:s3cr%3At%2F@127.0.0.1:{port}/2")
        self.assertEqual(self.drain(nodes, "login", "bob"), 5)
        self.assertEqual(nodes[0].end(), 0)
        self.assertNotIn("s3cr", nodes[0].text())
        wrong = self.fleet(1, books=f"redis://:wrong@127.0.0.1:{port}", ports=self.ports)
        self.until(lambda: "WRONGPASS" in wrong[0].text(), wrong[0].text())


class Apart(Books):
    def test_an_old_master_without_replicas_grants_nothing(self):
        ports = free_ports(2)
        old = self.server("old", port=ports[0], settings=[("min-replicas-to-write", "1"), ("min-replicas-max-lag", "10")])
        new = self.server("new", port=ports[1], settings=[("replicaof", f"127.0.0.1 {ports[0]}")])
        replica, master = Plain(new), Plain(old)
        self.until(lambda: b"min_slaves_good_slaves:1" in master.ask("INFO", "replication"))
        places = [f"127.0.0.1:{port}" for port in ports]
        self.fleet(0, books=f"redis://{places[0]},{places[1]}", ports=free_ports(3))
        nodes = [self.node(0), self.node(1)]
        for node in nodes:
            node.wait_for("STATUS")
        self.fleet(0, books=f"redis://{places[0]}", ports=self.ports)
        nodes.append(self.node(2))  # it knows of no other
        for node in nodes:
            node.ready()
        self.take(nodes, "strict", "bob", 10)
        self.until(lambda: replica.ask("ROLE")[4] == master.ask("ROLE")[1])
        self.assertEqual(replica.ask("REPLICAOF", "NO", "ONE"), "OK")
        apart, *others = [Plain(node) for node in reversed(nodes)]
        held = self.told(apart, "strict", "bob")["ceiling"]
        # Reports find that the old one grants nothing; what the one apart holds is left out at the new one.
        self.until(lambda: [other.ask("TALLY.TAKE", "strict", "bob") for other in others] and self.admitted(nodes[:2], "strict") >= 100 - held)
        self.assertEqual(self.losses(nodes), [1, 1, 0])
        while apart.ask("TALLY.TAKE", "strict", "bob")[0] == 0:
            pass
        self.assertTrue(100 - held <= self.admitted(nodes, "strict") <= 100, self.admitted(nodes, "strict"))


class Sentinel(Books):
    def test_another_master_is_found_and_nothing_is_admitted_twice(self):
        ports = free_ports(3)
        first = self.server("first", port=ports[0])
        second = self.server("second", port=ports[1], settings=[("replicaof", f"127.0.0.1 {ports[0]}")])
        watch = f"sentinel monitor main 127.0.0.1 {ports[0]} 1\nsentinel down-after-milliseconds main 300\nsentinel failover-timeout main 2000\n"
        self.server("sentinel", port=ports[2], sentinel=watch)
        replica = Plain(second)
        self.until(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"))
        nodes = self.fleet(books=f"redis-sentinel://127.0.0.1:{ports[2]}/main", isolation_after="1s")
        self.take(nodes, "strict", "bob", 10)
        first.end()
        self.assertEqual(self.drain(nodes, "strict", "bob"), 70)
        self.assertEqual(Plain(second).ask("ROLE")[0], b"master")
        self.assertEqual(self.losses(nodes), [1, 1, 1])


if __name__ == "__main__":
    processes.main(sys.argv)
