#!/usr/bin/env python3
"""Fleets whose list of nodes changes while they are used: roster_process_test.py TALLYD TALLY [TEST...]"""
import signal
import sys
import threading
import time
import urllib.request

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from processes import DAY, PROGRAMS, WAIT_S, Case, Daemon, Plain, free_ports, run  # noqa: E402

LIMIT = 400
RULES = [{"name": "login", "limit": LIMIT, "window": DAY, "algorithm": "fixed_window", "max_overcount": 0, "on_isolation": "closed", "wait": "50ms"},
         {"name": "short", "limit": 3, "window": "1s", "algorithm": "fixed_window", "max_overcount": 0, "on_isolation": "closed", "wait": "1s"}]


class Load(threading.Thread):
    """Asks for one key, now at this daemon and now at that, until it is ended; a daemon that is away is passed over."""

    def __init__(self, nodes):
        super().__init__()
        self.nodes, self.admitted, self.asked, self.failed, self._end = nodes, 0, 0, 0, threading.Event()
        self.start()

    def run(self):
        clients = {}
        while not self._end.is_set():
            for name, node in list(self.nodes.items()):
                try:
                    if clients.get(name, (None,))[0] is not node:
                        clients[name] = (node, Plain(node))
                    self.admitted += clients[name][1].ask("TALLY.TAKE", "login", "bob")[0] == 0
                    self.asked += 1
                except (OSError, EOFError):
                    self.failed += 1
                    clients.pop(name, None)

    def end(self):
        self._end.set()
        self.join()


class Rosters(Case):
    def setUp(self):
        super().setUp()
        self.ports = free_ports(4)
        self.entries = [f"127.0.0.1:{port}" for port in self.ports]
        self.nodes = {}
        self.by_reload = False

    def until(self, what, said):
        end = time.monotonic() + WAIT_S
        while not what():
            self.assertLess(time.monotonic(), end, said + "\n" + "\n".join(node.text() for node in self.nodes.values()))

    def config(self, i, version, members, previous=None, gone=()):
        lists = {"roster_version": version, "peers": [self.entries[m] for m in members], "gone": [self.entries[m] for m in gone]}
        if previous:
            lists["previous"] = {"roster_version": version - 1, "peers": [self.entries[m] for m in previous]}
        return self.write({"node": {"state_dir": str(self.folder / f"state-{i}")}, "table": {"keys": 4096}, "workers": 1, "rules": RULES,
                           "listen": {"http": ["127.0.0.1:0"]},
                           "cluster": {"bind": self.entries[i], "sync_interval": "20ms", "isolation_after": "1h", **lists}}, f"n{i}.json")

    def node(self, i, *lists, **more):
        """Starts it, or starts it again, or has it read another list."""
        config = self.config(i, *lists, **more)
        if i in self.nodes and self.by_reload:
            done = run(PROGRAMS["tally"], "-s", self.nodes[i].socket, "reload")
            self.assertEqual(done.returncode, 0, done.stderr + self.nodes[i].text())
            self.nodes[i].ready()
            return
        if i in self.nodes:
            self.assertEqual(self.nodes.pop(i).end(), 0)
        node = Daemon(self.folder, ["-c", config], name=f"n{i}")
        self.addCleanup(node.kill)
        self.nodes[i] = node.ready()

    def first_three(self):  # all at once: none is ready before it has heard the others
        for i in (0, 1, 2):
            self.nodes[i] = self.start("-c", self.config(i, 1, [0, 1, 2]), name=f"n{i}")
        for node in self.nodes.values():
            node.ready()

    def metric(self, i, name):
        text = urllib.request.urlopen(f"http://{self.nodes[i].http()}/metrics", timeout=WAIT_S).read().decode()
        return next(float(line.split()[-1]) for line in text.splitlines() if line.split()[0] == name)

    def settled(self):
        self.until(lambda: all(self.metric(i, "tallyd_roster_settled") == 1 for i in self.nodes), "the change is not over")

    def serves(self, key):
        """Every node is granted something of a short window's key: one that began under the list that rules by now."""
        for i, node in self.nodes.items():
            client = Plain(node)
            self.until(lambda client=client: client.ask("TALLY.TAKE", "short", key)[0] == 0, f"{key} is not served at node {i}")

    def test_a_node_is_added_and_another_taken_out_under_load(self):
        old, both = [0, 1, 2], [0, 1, 2, 3]
        self.first_three()
        self.serves("before")
        load = Load(self.nodes)
        self.addCleanup(load.end)

        def goes_on():
            asked = load.asked
            self.until(lambda: load.asked > asked + 50, "the load stands still")

        goes_on()
        for i in (3, 0, 1, 2):  # the new one first, then the others one by one, each when the one before is ready
            self.node(i, 2, both, old)
            goes_on()
        self.settled()
        self.serves("with four")
        failed = load.failed
        self.by_reload = True  # from here on; what was done so far by restarts
        for i in both:
            self.node(i, 2, both)
        new = [1, 2, 3]
        for i in (1, 2, 3, 0):  # 0 goes: it hears of the list without it, and says that it has left
            self.node(i, 3, new, both)
            goes_on()
        self.settled()
        self.assertEqual(self.nodes.pop(0).end(), 0)
        for i in new:
            self.node(i, 3, new)
        self.serves("without the first")
        load.end()
        self.assertLessEqual(load.failed - failed, 2)  # of the node that was taken out
        self.assertLessEqual(load.admitted, LIMIT)
        self.assertGreater(load.admitted, 0)
        self.assertEqual({self.metric(i, "tallyd_roster_version") for i in new}, {3})
        self.assertEqual([node.end() for node in self.nodes.values()], [0] * 3)

    def test_a_node_that_is_gone_for_good_holds_nobody_up(self):
        self.first_three()
        self.serves("before")
        self.nodes.pop(2).end(signal.SIGKILL)
        for i in (3, 0, 1):
            self.node(i, 2, [0, 1, 3], [0, 1, 2], gone=[2])
        self.settled()
        self.serves("after")
        self.assertEqual([node.end() for node in self.nodes.values()], [0] * 3)

    def test_a_node_that_dies_for_good_while_the_list_changes_is_forgotten(self):
        self.first_three()
        self.serves("before")
        for i in (3, 0, 1):
            self.node(i, 2, [0, 1, 3], [0, 1, 2])
        forget = lambda i, entry: run(PROGRAMS["tally"], "-s", self.nodes[i].socket, "forget", entry)  # noqa: E731
        refused = forget(0, self.entries[2])
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("was heard just now", refused.stdout + refused.stderr)
        self.nodes.pop(2).end(signal.SIGKILL)  # it has not left, and never will
        self.assertEqual(self.metric(0, "tallyd_roster_settled"), 0)
        self.assertIn("is in a list that this one goes by", forget(0, "127.0.0.1:1").stderr)
        for i in self.nodes:
            self.until(lambda i=i: forget(i, self.entries[2]).returncode == 0, "it is not forgotten")
        self.settled()
        self.serves("after")
        self.assertEqual([node.end() for node in self.nodes.values()], [0] * 3)

    def test_a_list_that_may_not_follow_is_refused(self):
        self.first_three()
        self.assertEqual(self.nodes.pop(0).end(), 0)

        def refused(said, *lists):
            node = self.start("-c", self.config(0, *lists), name="n0")
            self.assertEqual(node.ended(), 1)
            self.assertIn(said, node.text())

        refused("this node has gone by roster version 1: give it that list as cluster.previous, beside version 2", 2, [0, 1, 3])
        self.node(0, 2, [0, 1, 3], [0, 1, 2])
        self.assertEqual(self.nodes.pop(0).end(), 0)
        refused("this node has gone by roster version 2 and never goes back to 1", 1, [0, 1, 2])
        refused("this node has gone by roster version 2 and the change to it is not over: keep cluster.previous", 2, [0, 1, 3])
        self.config(1, 2, [0, 1, 3])  # and by one that runs, which goes on
        done = run(PROGRAMS["tally"], "-s", self.nodes[1].socket, "reload")
        self.assertIn("nothing was changed: this node has gone by roster version 1: give it that list as cluster.previous", done.stderr)
        self.assertEqual(done.returncode, 2)
        self.assertEqual(self.metric(1, "tallyd_roster_version"), 1)
        self.assertEqual([node.end() for node in self.nodes.values()], [0] * 2)


if __name__ == "__main__":
    processes.main(sys.argv)
