#!/usr/bin/env python3
"""Daemons that share a secret, and what others can do to them: secrets_process_test.py TALLYD TALLY [TEST...]"""
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import sys
import threading
import time
import urllib.request

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from processes import DAY, PROGRAMS, WAIT_S, Case, Plain, free_ports, run  # noqa: E402

RULES = [{"name": "login", "limit": 5, "window": DAY, "algorithm": "fixed_window", "max_overcount": 0, "wait": "10s",
          "on_isolation": "closed"},
         {"name": "api", "limit": 1000000, "window": DAY, "algorithm": "fixed_window", "max_overcount": 0, "wait": "10s"}]
SEAL_BYTES = 47


class Relay:
    """Stands between the daemons: each is looked for at an entry of the relay's and hears at an address of its own. Keeps what went by."""

    def __init__(self, count):
        self.entries = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
        for one in self.entries:
            one.bind(("127.0.0.1", 0))
        self.ports = [one.getsockname()[1] for one in self.entries]
        self.binds = free_ports(count)
        self.seen = []  # (from, to, bytes)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._end.is_set():
            for entry in select.select(self.entries, [], [], 0.05)[0]:
                data, (_, port) = entry.recvfrom(4096)
                if port in self.binds:
                    self.say(self.binds.index(port), self.entries.index(entry), data)

    def say(self, sender, receiver, data):
        self.seen.append((sender, receiver, data))
        self.entries[sender].sendto(data, ("127.0.0.1", self.binds[receiver]))

    def stop(self):
        self._end.set()
        self._thread.join()
        for one in self.entries:
            one.close()


class Secrets(Case):
    def setUp(self):
        super().setUp()
        self.relay = Relay(3)
        self.addCleanup(self.relay.stop)
        self.peers = [f"127.0.0.1:{port}" for port in self.relay.ports]

    def secret(self, name="secret"):
        path = self.folder / name
        done = run(PROGRAMS["tally"], "secret", path)
        self.assertEqual(done.returncode, 0, done)
        return path

    def rotate(self, path, *more):
        done = run(PROGRAMS["tally"], "secret", "--rotate", "--json", *more, path)
        self.assertEqual(done.returncode, 0, done)
        return json.loads(done.stdout)

    def node(self, i, secret):
        config = self.write({"node": {"state_dir": str(self.folder / "tallyd")}, "table": {"keys": 4096}, "workers": 1,
                             "listen": {"http": ["127.0.0.1:0"]}, "rules": RULES,
                             "cluster": {"bind": f"127.0.0.1:{self.relay.binds[i]}", "self": self.peers[i], "peers": self.peers,
                                         "sync_interval": "20ms", "isolation_after": "1h", "secret_file": str(secret)}}, f"n{i}.json")
        return self.start("-c", config, name=f"n{i}")

    def fleet(self, secrets):
        nodes = [self.node(i, secret) for i, secret in enumerate(secrets)]
        return [node.ready() for node in nodes]

    def metrics(self, node):
        text = urllib.request.urlopen(f"http://{node.http()}/metrics", timeout=WAIT_S).read().decode()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}

    def dropped(self, node, reason):
        return self.metrics(node).get(f'tallyd_sync_dropped_total{{reason="{reason}"}}', 0)

    def until(self, what, said):
        end = time.monotonic() + WAIT_S
        while not what():
            self.assertLess(time.monotonic(), end, said)

    def test_three_daemons_share_a_limit_and_nothing_goes_in_the_clear(self):
        nodes = self.fleet([self.secret()] * 3)
        clients = [Plain(node) for node in nodes]
        replies = [client.ask("TALLY.TAKE", "login", "bob") for client in clients * 5]
        self.assertEqual(sum(reply[0] == 0 for reply in replies), 5, replies)
        self.assertEqual([node.end() for node in nodes], [0, 0, 0])
        self.assertGreater(len(self.relay.seen), 20)
        self.assertEqual({data[:3] for _, _, data in self.relay.seen}, {b"Ts\1"})
        self.assertLessEqual(max(len(data) for _, _, data in self.relay.seen), 1400)
        nonces = [data[7:31] for _, _, data in self.relay.seen]
        self.assertEqual(len(nonces), len(set(nonces)))
        keys = [line.split()[1] for line in (self.folder / "secret").read_text().splitlines() if line[0] != "#"]
        for node in nodes:  # nothing of them in a log
            self.assertFalse(any(key[:12] in node.text() for key in keys))

    def test_a_daemon_with_another_secret_is_not_listened_to_and_counted(self):
        ours, other = self.secret(), self.secret("other")
        nodes = [self.node(i, other if i == 2 else ours) for i in range(3)]
        for node in nodes[:2]:
            node.ready()
            self.until(lambda node=node: self.dropped(node, "unknown_key") > 0, "nothing of the stranger was dropped")
            self.assertEqual(self.metrics(node)[f'tallyd_peer_up{{peer="{self.peers[2]}"}}'], 0)
        replies = [Plain(node).ask("TALLY.TAKE", "login", "bob")[0] for node in nodes[:2] * 5]
        self.assertEqual(replies.count(0), 5)  # two of three are a majority
        self.until(lambda: self.dropped(nodes[2], "unknown_key") > 0, "the stranger heard something")

    def test_forged_replayed_reflected_and_foreign_datagrams_change_nothing_and_are_counted(self):
        nodes = self.fleet([self.secret()] * 3)
        first = len(self.relay.seen)  # what was said earlier may have found node 0 not there yet, and would be no replay
        self.assertEqual(sum(Plain(nodes[0]).ask("TALLY.TAKE", "login", "bob")[0] == 0 for _ in range(5)), 5)
        self.until(lambda: sum(sender == 1 and receiver == 0 for sender, receiver, _ in self.relay.seen[first:]) > 20, "too little was said")
        said = [data for sender, receiver, data in self.relay.seen[first:] if (sender, receiver) == (1, 0)]
        before = self.metrics(nodes[0])
        for n, data in enumerate(said[:20], 1):  # no faster than they are read: a full receive queue loses some, and all are counted below
            damaged = bytearray(data)
            damaged[-1] ^= 1
            self.relay.say(1, 0, bytes(damaged))
            self.relay.say(1, 0, data)
            self.until(lambda n=n: self.dropped(nodes[0], "replayed") >= n, f"not {n} times replayed")
        to_others = [data for sender, receiver, data in list(self.relay.seen) if (sender, receiver) == (0, 1)][:10]
        for data in to_others:
            self.relay.say(1, 0, data)
        for data in [data for sender, receiver, data in list(self.relay.seen) if (sender, receiver) == (1, 2)][:10]:
            self.relay.say(1, 0, data)
        self.relay.say(1, 0, b"Ty\1" + bytes(60))
        self.relay.say(1, 0, b"Ts\2" + bytes(60))
        self.relay.say(1, 0, b"Ts\1" + bytes(60))
        self.relay.say(1, 0, b"Ts\1")
        self.relay.say(1, 0, bytes(60))
        self.relay.say(1, 0, bytes(1500))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as elsewhere:  # and from an address of nobody's: no answer to a replay
            elsewhere.bind(("127.0.0.1", 0))
            for data in said[:20]:
                elsewhere.sendto(data, ("127.0.0.1", self.relay.binds[0]))
            for reason, count in {"forged": 20, "replayed": 40, "reflected": 10, "foreign": 10, "unsealed": 1, "version": 1,
                                  "unknown_key": 1, "too_short": 1, "bad_magic": 1, "too_long": 1}.items():
                self.until(lambda reason=reason, count=count: self.dropped(nodes[0], reason) >= count, f"not {count} times {reason}")
                self.assertEqual(self.dropped(nodes[0], reason), count, reason)
            self.assertEqual(select.select([elsewhere], [], [], 0)[0], [])
        after = self.metrics(nodes[0])
        for name in ("tallyd_keys_owned", "tallyd_registers"):
            self.assertEqual(before[name], after[name])
        self.assertEqual([Plain(node).ask("TALLY.TAKE", "login", "bob")[0] for node in nodes], [1, 1, 1])
        self.assertEqual([node.end() for node in nodes], [0, 0, 0])

    def test_a_rotation_under_load_refuses_no_datagram(self):
        source = self.secret()
        copies = [self.folder / f"secret-{i}" for i in range(3)]
        for copy in copies:
            shutil.copy(source, copy)  # with its mode
        nodes = self.fleet(copies)
        first = self.keys(nodes[0])
        stop, taken = threading.Event(), [0] * 3

        def load(i):
            client = Plain(nodes[i])
            while not stop.is_set():
                taken[i] += client.ask("TALLY.TAKE", "api", f"key{taken[i] % 50}")[0] == 0

        threads = [threading.Thread(target=load, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        try:
            for step, (action, uses) in enumerate([("add", {"seal", "next"}), ("use", {"seal", "old"}), ("drop", {"seal"})], 1):
                self.assertEqual(self.rotate(source)["step"], action)
                for i, node in enumerate(nodes):
                    shutil.copy(source, copies[i])
                    node.process.send_signal(signal.SIGHUP)
                    self.until(lambda node=node, step=step: node.text().count("the configuration was read again") == step, "not read again")
                    self.assertRegex(node.text(), r"the configuration was read again rules=2 key=\w{8}\n")
                    counts = list(taken)  # each step of each node sees traffic
                    self.until(lambda counts=counts: all(now > then + 20 for now, then in zip(taken, counts)), "the load stands still")
                for node in nodes:
                    self.assertEqual(set(self.keys(node).values()), uses)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        last = self.keys(nodes[0])
        self.assertEqual((len(first), len(last)), (1, 1))
        self.assertNotEqual(first, last)
        for node in nodes:
            values = self.metrics(node)
            for reason in ("unknown_key", "forged", "replayed", "foreign"):
                self.assertNotIn(f'tallyd_sync_dropped_total{{reason="{reason}"}}', values)
            self.assertEqual(values["tallyd_config_last_reload_successful"], 1)
        self.assertEqual([node.end() for node in nodes], [0, 0, 0])

    def keys(self, node):
        return dict(re.match(r'tallyd_sync_opened_total\{key="(\w+)",use="(\w+)"\}', name).groups()
                    for name in self.metrics(node) if name.startswith("tallyd_sync_opened_total"))

    def test_a_file_that_became_unusable_is_refused_on_sighup_and_the_old_keys_stay(self):
        source = self.secret()
        copy = self.folder / "copy"
        shutil.copy(source, copy)
        nodes = self.fleet([copy, source, source])
        good, before = source.read_text(), self.keys(nodes[0])

        def hup(said):
            count = nodes[0].text().count(said)
            nodes[0].process.send_signal(signal.SIGHUP)
            self.until(lambda: nodes[0].text().count(said) > count, f"the log does not say {said}")

        copy.chmod(0o640)
        hup(f"{copy}: may be used by others than its owner (mode 0640): chmod 600")
        copy.chmod(0o600)
        copy.write_text(good.replace("seal", "sael"))
        hup(f"{copy}:5:1: a line begins with")
        copy.write_text(self.secret("other").read_text())
        hup("that is another fleet's secret")
        copy.unlink()
        hup("cannot be opened: No such file or directory")
        self.assertEqual(self.metrics(nodes[0])["tallyd_config_last_reload_successful"], 0)
        self.assertEqual(self.keys(nodes[0]), before)
        replies = [Plain(node).ask("TALLY.TAKE", "login", "bob")[0] for node in nodes * 2]
        self.assertEqual(replies.count(0), 5)
        shutil.copy(source, copy)
        hup("the configuration was read again")
        self.assertEqual(self.metrics(nodes[0])["tallyd_config_last_reload_successful"], 1)
        self.assertEqual([node.end() for node in nodes], [0, 0, 0])

    def test_a_file_that_others_can_use_or_that_is_none_is_refused_at_the_start(self):
        secret = self.secret()

        def refused(path, why):
            node = self.node(0, path)
            self.assertEqual(node.ended(), 78)
            self.assertIn(why, node.text())
            self.assertRegex(node.text(), r"n0\.json:1:\d+: cluster\.secret_file: cannot be used, see above")

        for mode in (0o644, 0o640, 0o610, 0o602):
            secret.chmod(mode)
            refused(secret, f"{secret}: may be used by others than its owner (mode {mode:04o}): chmod 600")
        secret.chmod(0o600)
        os.mkfifo(self.folder / "pipe", 0o600)
        refused(self.folder / "pipe", "is not a regular file")
        refused(self.folder, "is not a regular file")
        refused(self.folder / "none", "none: cannot be opened: No such file or directory")
        secret.write_text(secret.read_text() + "seal 12\n")
        refused(secret, f"{secret}:6:1: seal: stands in line 5 already")
        if os.geteuid() == 0:
            os.chown(secret, 12345, -1)
            refused(secret, "belongs to another user (12345)")

    def test_a_peer_beyond_loopback_needs_a_secret_and_is_served_with_one(self):
        cluster = {"bind": "0.0.0.0:0", "self": "192.0.2.1:8381", "peers": ["192.0.2.1:8381", "192.0.2.2:8381"]}
        cluster["bind"] = f"0.0.0.0:{free_ports(1)[0]}"
        done = run(PROGRAMS["tallyd"], "--check", "-c", self.small(cluster=cluster), folder=self.folder)
        self.assertEqual(done.returncode, 78, done)
        self.assertRegex(done.stderr, r"tallyd\.json:1:\d+: cluster\.bind: \"0\.0\.0\.0:\d+\" is not a loopback address, so the nodes "
                                      r"need a secret: make one with \"tally secret FILE\"")
        node = self.start("-c", self.small(cluster=dict(cluster, secret_file=str(self.secret()))), name="n")
        node.ready()
        self.assertIn("datagrams are sealed", node.text())
        self.assertEqual(node.end(), 0)

    def test_the_tool_never_overwrites_and_changes_a_file_as_a_whole(self):
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        secret = self.secret()
        self.assertEqual(secret.stat().st_mode & 0o7777, 0o600)
        text = secret.read_text()
        again = run(PROGRAMS["tally"], "secret", secret)
        self.assertEqual(again.returncode, 78)
        self.assertIn("never overwritten", again.stderr)
        self.assertEqual(secret.read_text(), text)

        secret.chmod(0o400)
        link = self.folder / "link"
        link.symlink_to(secret)
        added = self.rotate(link)
        self.assertEqual((added["step"], added["changed"], added["old"]), ("add", True, None))
        self.assertEqual(self.rotate(link, "--step", "add"), dict(added, changed=False))
        used = self.rotate(link, "--step", "use")
        self.assertEqual((used["seal"], used["old"], used["next"]), (added["next"], added["seal"], None))
        early = run(PROGRAMS["tally"], "secret", "--rotate", "--step", "add", link)
        self.assertEqual((early.returncode, "drop it first" in early.stderr), (78, True))
        dropped = self.rotate(link)
        self.assertEqual((dropped["seal"], dropped["old"], dropped["next"]), (used["seal"], None, None))
        self.assertTrue(link.is_symlink())
        self.assertEqual(secret.stat().st_mode & 0o7777, 0o400)
        self.assertEqual(secret.read_text().splitlines()[3], text.splitlines()[3])  # the id
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["link", "secret"])
        secret.chmod(0o604)
        self.assertEqual(run(PROGRAMS["tally"], "secret", "--rotate", secret).returncode, 78)
        self.assertEqual(run(PROGRAMS["tally"], "secret").returncode, 2)
        self.assertEqual(run(PROGRAMS["tally"], "secret", "--rotate", "--step", "x", secret).returncode, 2)


if __name__ == "__main__":
    processes.main(sys.argv)
