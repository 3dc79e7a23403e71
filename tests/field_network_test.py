#!/usr/bin/env python3
"""The network that tools/field makes: what it carries, delays, loses, repeats and cuts. Needs root and TUN; says so and is skipped (exit 77) elsewhere.

What comes is waited for, and nothing is asked of how soon. That nothing came is known by what was sent after it, by another way round or once
the way is free, and by the relay's counts.
"""
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
FIELD = pathlib.Path(__file__).resolve().parent.parent / "tools" / "field"
sys.path.insert(0, str(FIELD))
from namespaces import need_network  # noqa: E402
from network import Network, NetworkError  # noqa: E402

PATIENCE_S = 60  # for anything that is certain to come


class Ends(unittest.TestCase):
    """Two hosts, a socket in each, for either protocol."""

    def setUp(self):
        self.network = Network(["a", "b"])
        self.addCleanup(self.network.close)
        self.a, self.b = self.sockets(socket.AF_INET)

    def sockets(self, family):
        made = [self.network.socket(host, family) for host in ("a", "b")]
        for each in made:
            each.settimeout(PATIENCE_S)
            self.addCleanup(each.close)
        return made

    def send(self, data, sender=None, receiver=None):
        (sender or self.a).sendto(data, (receiver or self.b).getsockname())

    def next(self, receiver=None):
        return (receiver or self.b).recv(100)

    def counts(self, pair="a b"):
        return self.network.count().get(pair, {})

    def until(self, name, value, pair="a b"):
        end = time.monotonic() + PATIENCE_S
        while self.counts(pair).get(name, 0) < value:
            self.assertLess(time.monotonic(), end, f"{name} of {pair} is {self.counts(pair)}")

    def test_hosts_hear_each_other_with_the_source_as_it_was(self):
        for family, address in ((socket.AF_INET, "10.77.0.1"), (socket.AF_INET6, "fd00::1")):
            if family == socket.AF_INET6 and not self.network.has_ipv6:
                self.skipTest("no IPv6 in this kernel")
            a, b = self.sockets(family)
            self.send(b"ping", a, b)
            data, source = b.recvfrom(100)
            self.assertEqual((data, source[:2]), (b"ping", (address, a.getsockname()[1])))
            b.sendto(b"pong", source)
            data, source = a.recvfrom(100)
            self.assertEqual((data, source[:2]), (b"pong", b.getsockname()[:2]))

    def test_a_delay_is_never_cut_short_and_is_one_way(self):
        self.network.set("a", "b", delay=80, jitter=20)
        sent = time.monotonic()
        self.send(b"slow")
        self.assertEqual(self.next(), b"slow")
        self.assertGreaterEqual(time.monotonic() - sent, 0.08)
        self.network.set("a", "b", delay=60_000, jitter=0)  # longer than any patience
        self.send(b"still on its way")
        self.send(b"the other way", self.b, self.a)
        self.assertEqual(self.next(self.a), b"the other way")

    def test_jitter_keeps_the_order(self):
        self.network.set("a", "b", delay=1, jitter=20)
        for n in range(100):
            self.send(b"%d" % n)
        self.assertEqual([int(self.next()) for _ in range(100)], list(range(100)))

    def test_a_loss_of_all_loses_all_and_a_loss_of_half_some(self):
        self.network.set("a", "b", loss=1)
        for _ in range(50):
            self.send(b"lost")
        self.until("lost", 50)
        self.network.set("a", "b", loss=0)
        self.send(b"found")
        self.assertEqual(self.next(), b"found")
        self.network.set("a", "b", loss=0.5)
        for n in range(200):
            self.send(b"%d" % n)
        end = time.monotonic() + PATIENCE_S
        while (counts := self.counts())["passed"] + counts["lost"] < 251:
            self.assertLess(time.monotonic(), end, counts)
        self.assertGreater(counts["lost"], 50 + 20)
        self.assertGreater(counts["passed"], 1 + 20)

    def test_a_cut_is_one_way_and_takes_what_is_on_its_way(self):
        self.network.set("a", "b", delay=50)
        self.send(b"on its way")
        self.network.cut("a", "b")
        self.send(b"too late")
        self.until("cut", 2)
        self.send(b"back", self.b, self.a)
        self.assertEqual(self.next(self.a), b"back")
        self.network.join("a", "b")
        self.send(b"again")
        self.assertEqual(self.next(), b"again")
        self.network.split("a", "b")
        self.send(b"no")
        self.send(b"neither", self.b, self.a)
        self.until("cut", 3)
        self.until("cut", 1, "b a")

    def test_a_cut_of_udp_leaves_tcp(self):
        with self.network.listener("b") as door, self.network.socket("a", socket.AF_INET, socket.SOCK_STREAM) as caller:
            self.network.cut("*", "*", "udp")
            self.send(b"no")
            self.until("cut", 1)
            caller.settimeout(PATIENCE_S)
            caller.connect(door.getsockname())
            caller.sendall(b"yes")
            door.settimeout(PATIENCE_S)
            with door.accept()[0] as accepted:
                accepted.settimeout(PATIENCE_S)
                self.assertEqual(accepted.recv(10), b"yes")
            self.network.join("*", "*")
            self.send(b"again")
            self.assertEqual(self.next(), b"again")

    def test_a_duplicate_comes_twice(self):
        self.network.set("a", "b", duplicate=1)
        self.send(b"twice")
        self.assertEqual([self.next(), self.next()], [b"twice"] * 2)
        self.assertEqual(self.counts()["duplicated"], 1)

    def test_what_is_reordered_is_passed_by_what_comes_after(self):
        self.network.set("a", "b", reorder=1, hold=300)
        self.send(b"first")
        self.until("reordered", 1)
        self.network.set("a", "b", reorder=0)
        self.send(b"second")
        self.assertEqual([self.next(), self.next()], [b"second", b"first"])

    def test_a_queue_has_an_end(self):
        self.network.set("a", "b", delay=60_000, queue=10)
        for _ in range(30):
            self.send(b"x")
        self.until("full", 20)
        self.assertEqual(self.counts()["full"], 20)

    def test_what_makes_no_sense_is_refused_and_the_rest_goes_on(self):
        for line in ("nonsense", "set a b loss=2", "set a c loss=0", "cut a", "set a b delay=-1", "set a b delay", "cut a b loss=1"):
            with self.assertRaises(NetworkError):
                self.network.ask(line)
        self.assertEqual(self.network.ask("cut a,b *"), "ok")

    def test_a_process_in_a_host_keeps_its_pid_and_has_only_this_network(self):
        process = subprocess.Popen(self.network.words("b", [sys.executable, "-c", "import os, socket; print(os.getpid(), socket.if_nameindex())"]),
                                   stdout=subprocess.PIPE, text=True)
        said = process.communicate(timeout=PATIENCE_S)[0]
        self.assertEqual(said.split(" ", 1)[0], str(process.pid))
        self.assertIn("tun0", said)
        self.assertNotIn("eth", said)


class Endings(unittest.TestCase):
    def test_the_relay_ends_with_whoever_made_it_even_by_a_kill(self):
        code = f"import sys; sys.path.insert(0, {str(FIELD)!r}); from network import Network; n = Network(['a']); print(n.relay.pid, flush=True); input()"
        owner = subprocess.Popen([sys.executable, "-B", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        relay = os.pidfd_open(int(owner.stdout.readline()))
        owner.send_signal(signal.SIGKILL)
        self.assertEqual(select.select([relay], [], [], PATIENCE_S)[0], [relay])
        os.close(relay)
        owner.communicate()


if __name__ == "__main__":
    need_network()
    unittest.main(verbosity=1)
