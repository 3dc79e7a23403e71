#!/usr/bin/env python3
"""What a tallyd does with datagrams that say more than it knows, or that are not for it: protocol_refusals_process_test.py TALLYD TALLY [TEST...]"""
import pathlib
import re
import sys

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "protocol"))
import document  # noqa: E402
import hashes  # noqa: E402
from fleet import LIMIT, FleetOfTwo  # noqa: E402
from owner import Owner  # noqa: E402
from seal import seal  # noqa: E402
from wire import Entry, encode, varint  # noqa: E402


class Refusals(FleetOfTwo):
    def test_a_node_that_says_more_than_the_daemon_knows_is_understood_as_far_as_it_is_known(self):
        self.node.newer = True
        self.fleet()
        self.node.send(self.peer, Entry("hello", rules=self.node.rules))
        self.assertEqual(self.node.hear("hello", answer=1).life, self.node.incarnation)
        key = self.node.key_owned_by("login", self.peer)
        self.assertEqual(self.ask_for(key, 3).backed, 1)  # its acceptance was read, too
        Owner(self.node, LIMIT)
        key = self.node.key_owned_by("login", self.node.entry)
        replies = [self.take(key) for _ in range(LIMIT + 1)]
        self.assertEqual([(reply[0], reply[5]) for reply in replies], [(0, 0)] * LIMIT + [(1, 1)])
        self.nothing_was_dropped()

    def test_another_version_is_counted_and_nothing_of_it_is_used(self):
        self.fleet()
        key = self.node.key_owned_by("login", self.peer)
        id_, _ = self.place(key)
        for version in (0, 2, 255):
            with self.node.lock:
                data = self.node.bytes_to(self.peer, self.report(key, LIMIT), version=version)
                self.node.send_bytes(self.peer, data)
        self.until(lambda: self.dropped() == {"version": 3}, "not counted")
        if self.secret:
            with self.node.lock:
                plain = encode(self.node.header_to(self.peer), [self.report(key, LIMIT)], self.node.key)
                self.node.send_bytes(self.peer, seal(plain, self.secret["seal"], version=2))
            self.until(lambda: self.dropped() == {"version": 4}, "another version of the seal is not counted")
        # What comes next is answered; had the others been read, so would they have been, before it.
        report = self.report(key, 2)
        self.node.send(self.peer, report)
        self.node.hear("grant", key=id_, stamp=report.stamp)
        self.assertEqual({grant.stamp for grant in self.node.said("grant", key=id_)} - {0}, {report.stamp})
        left = LIMIT - self.spend(key, self.ask_for(key, 2))
        self.assertEqual([self.take(key)[0] for _ in range(left)], [0] * left)

    def datagram(self, *entries, header=None, of=0):
        """of: another incarnation, so many later."""
        head = self.node.header_to(self.peer)
        head.values["incarnation"] += of
        head.values.update(header or {})
        return encode(head, entries, self.node.key)

    def closed(self, plain):
        return seal(plain, self.secret["seal"]) if self.secret else plain

    def all_reasons(self):
        """(reason, bytes of a datagram), in an order in which each is refused for that reason."""
        fine = self.datagram()
        me, other = self.node.id, self.daemon_id
        malformed = self.datagram()[:-8] + varint(7) + varint(200) + b"\0"
        malformed += hashes.keyed_hash(malformed, self.node.key).to_bytes(8, "little")
        inner = [("too_short", fine[:10]), ("bad_magic", b"Tz" + fine[2:]), ("version", fine[:2] + b"\2" + fine[3:]),
                 ("forged", fine[:-1] + bytes([fine[-1] ^ 1])), ("malformed", malformed),
                 ("reflected", self.datagram(header={"sender": other, "receiver": me})), ("foreign", self.datagram(header={"sender": 1})),
                 ("foreign", self.datagram(header={"receiver": me})), ("roster", self.datagram(header={"roster_version": 7})),
                 ("roster", self.datagram(header={"roster_hash": 7})), ("own_name", self.datagram(header={"sender": other, "receiver": other})),
                 ("older_life", self.datagram(of=-1, header={"echo_mono": 1})), ("clone", self.datagram(of=-1))]
        whole = [(reason, self.closed(data)) for reason, data in inner] + [("too_long", bytes(1401))]
        if not self.secret:
            return whole + [("sealed", seal(fine, bytes(range(32))))]
        true = self.closed(fine)
        return whole + [("unsealed", fine), ("too_short", true[:46]), ("bad_magic", bytes(60)), ("version", true[:2] + b"\2" + true[3:]),
                        ("unknown_key", seal(fine, bytes(range(32)))), ("forged", true[:-1] + bytes([true[-1] ^ 1]))]

    def test_every_reason_of_the_page_is_counted_and_changes_nothing(self):
        self.fleet()
        self.both_are_up()
        counts = {}
        with self.node.lock:
            reasons = self.all_reasons()
        for reason, data in reasons:
            with self.node.lock:
                self.node.send_bytes(self.peer, data)
            counts[reason] = counts.get(reason, 0) + 1
            self.until(lambda: self.dropped() == counts, f"{reason}: {self.dropped()} instead of {counts}")
        if self.secret:
            with self.node.lock:
                said = self.closed(self.datagram())
                self.node.send_bytes(self.peer, said)
                self.node.send_bytes(self.peer, said)
            counts["replayed"] = 1
            self.until(lambda: self.dropped() == counts, f"replayed: {self.dropped()} instead of {counts}")
        listed = {name for row in document.table(document.TEXT, "| reason | when |") for name in re.findall(r"^`(\w+)`", row[0])}
        self.assertEqual(set(counts) - listed, set())
        only = {"unsealed", "unknown_key", "replayed"} if not self.secret else {"sealed"}
        self.assertEqual(listed - set(counts), only | {"wrong_source", "guests_full"})  # answered: protocol_process_test.py; guests_test.cc
        clone = self.node.hear("clone")  # the older life lives, so the newer one is told
        self.assertEqual((clone.incumbent, clone.told, clone.elsewhere), (self.node.incarnation - 1, self.node.incarnation, 0))
        key = self.node.key_owned_by("login", self.peer)
        self.assertEqual([self.take(key)[0] for _ in range(LIMIT + 1)], [0] * LIMIT + [1])


class SealedRefusals(Refusals):
    sealed = True


if __name__ == "__main__":
    processes.main(sys.argv)
