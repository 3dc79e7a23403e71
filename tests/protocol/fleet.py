"""A fleet of two for tests: a tallyd, and a node by docs/protocol.md."""
import time
import urllib.request

import hashes
from node import Node
from processes import DAY, PROGRAMS, WAIT_S, Case, Plain, free_ports, run
from seal import read_secret
from wire import Entry

DAY_NS = 366 * 86_400 * 10**9
TOKEN_NS = 60 * 10**9
LIMIT, BURST, MANY, PLENTY = 5, 5, 100, 1000
RULES = [{"name": "login", "limit": LIMIT, "window": DAY, "algorithm": "fixed_window", "max_overcount": 0, "wait": "10s", "on_isolation": "closed"},
         {"name": "plenty", "limit": PLENTY, "window": DAY, "algorithm": "fixed_window", "max_overcount": 0, "wait": "500ms", "on_isolation": "closed"},
         {"name": "slide", "limit": MANY, "window": DAY, "max_overcount": 0, "wait": "10s", "on_isolation": "closed"},
         {"name": "feed", "algorithm": "token_bucket", "rate": "1/m", "burst": BURST, "max_overcount": 0, "wait": "10s", "on_isolation": "closed"}]
FINGERPRINT = hashes.fingerprint_of_rules([("login", 1, LIMIT, DAY_NS, 0, 0, 0), ("plenty", 1, PLENTY, DAY_NS, 0, 0, 0), ("slide", 0, MANY, DAY_NS, 0, 0, 0),
                                           ("feed", 2, BURST, 0, TOKEN_NS, 0, 0), ("(inline)", 2, 1, 0, 0, 50_000, 0)])


def window_now():
    return time.time_ns() // DAY_NS


class FleetOfTwo(Case):
    sealed = False

    def setUp(self):
        super().setUp()
        self.secret = None
        if self.sealed:
            self.assertEqual(run(PROGRAMS["tally"], "secret", self.folder / "secret").returncode, 0)
            self.secret = read_secret((self.folder / "secret").read_text())
        self.node = Node(secret=self.secret)
        self.addCleanup(self.node.stop)
        self.node.rules = FINGERPRINT
        self.peer = f"127.0.0.1:{free_ports(1)[0]}"
        self.entries = [self.peer, self.node.entry]
        self.node.join(self.entries)

    def fleet(self, **cluster):
        self.node.start()
        self.begin(**cluster)

    def begin(self, **cluster):
        """Starts the daemon, and waits until it serves."""
        if self.secret:
            cluster["secret_file"] = str(self.folder / "secret")
        config = self.write({"node": {"state_dir": str(self.folder / "tallyd")}, "table": {"keys": 4096}, "workers": 1,
                             "listen": {"http": ["127.0.0.1:0"]}, "rules": RULES,
                             "cluster": {"bind": self.peer, "peers": self.entries, "sync_interval": "20ms", "isolation_after": "1h", **cluster}})
        self.daemon = self.start("-c", config, name="n").ready()
        self.until(lambda: "serving HTTP" in self.daemon.text(), "no HTTP")  # where others answer at once it is ready before it says so

    # --- what is asked of the daemon ---

    def take(self, key, rule="login", cost=1):
        """limited, limit, remaining, retry, reset, reason (0 admitted, 1 over the limit, 2 no grant in time)"""
        return Plain(self.daemon).ask("TALLY.TAKE", rule, key, str(cost))

    def metrics(self):
        text = urllib.request.urlopen(f"http://{self.daemon.http()}/metrics", timeout=WAIT_S).read().decode()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}

    def dropped(self):
        return {name.split('"')[1]: int(value) for name, value in self.metrics().items()
                if name.startswith("tallyd_sync_dropped_total") and value > 0}

    def both_are_up(self):
        """And each has heard the other since it was heard."""
        self.until(lambda: self.metrics()[f'tallyd_peer_up{{peer="{self.node.entry}"}}'] == 1, "the node is not up")
        self.node.wait_for(lambda: any(said.header.echo_mono for said in self.node.heard), "the node was not heard")

    def until(self, what, said):
        end = time.monotonic() + WAIT_S
        while not what():
            self.assertLess(time.monotonic(), end, said)

    def nothing_was_dropped(self):
        self.assertEqual((self.dropped(), self.node.refused), ({}, []))

    # --- what the node says ---

    @property
    def daemon_id(self):
        return self.node.ids[self.peer]

    def place(self, key, rule="login"):
        return hashes.key_id(rule, key, self.node.key), window_now()

    def report(self, key, wanted, **more):
        id_, window = self.place(key)
        return Entry("report", **{"key": id_, "rule": hashes.rule_number("login"), "limit": LIMIT, "length": DAY_NS, "window": window, "line": 1,
                                  "wanted": wanted, "waiting": wanted, "waiting_min": 1, "algorithm": 1, "stamp": time.monotonic_ns(), **more})

    def ask_for(self, key, wanted):
        """A grant of at least so much, of a key that the daemon owns. (To one who answers slowly it gives something ahead.)"""
        return self.node.ask(self.peer, lambda: self.report(key, wanted), "grant", key=self.place(key)[0], granted=lambda n: n >= wanted)

    def spend(self, key, grant):
        """Reports all that was granted as used, until the daemon has no more on its way; returns how much that was."""
        while True:
            got = max(more.granted for more in self.node.said("grant", key=grant.key))
            spent = self.report(key, got, ballot=grant.ballot, has_ballot=1, used=got, ceiling=got, granted_heard=got, waiting=0, waiting_min=0)
            answer = self.node.ask(self.peer, lambda: spent, "grant", key=grant.key, stamp=spent.stamp)
            if answer.granted == got:
                self.assertEqual(answer.used_fleet, got)
                return got
