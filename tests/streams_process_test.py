#!/usr/bin/env python3
"""What a tallyd does with TCP connections, good and bad: streams_process_test.py TALLYD TALLY [TEST...]

The other end is a node by docs/protocol.md, or somebody who has no business there. By which way real daemons speak: transport_process_test.py.
"""
import contextlib
import os
import pathlib
import re
import select
import socket
import sys
import time

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from processes import WAIT_S, Plain  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "protocol"))
from fleet import DAY_NS, FleetOfTwo  # noqa: E402
from node import Node  # noqa: E402
from seal import seal, unseal  # noqa: E402
from wire import Entry, Refused, decode  # noqa: E402

UNKNOWN_MAX = 128
QUEUE_MAX = 256 * 1024
LONGEST = 1400


def frame(data):
    return len(data).to_bytes(2, "little") + data


class Connection:
    """To the daemon, from an address on loopback; the frames of it are read as they are asked for."""

    def __init__(self, made):
        self.socket, self.read = made, b""
        made.settimeout(WAIT_S)

    @classmethod
    def to(cls, entry, source="127.0.0.1", room=None):
        host, port = entry.rsplit(":", 1)
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.settimeout(WAIT_S)
        if room:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        made.bind((source, 0))
        made.connect((host, int(port)))
        return cls(made)

    def send(self, data):
        self.socket.sendall(data)

    def next(self):
        """The next frame; None at the end."""
        while len(self.read) < 2 or len(self.read) < 2 + int.from_bytes(self.read[:2], "little"):
            try:
                more = self.socket.recv(65536)
            except ConnectionError:
                more = b""
            if not more:
                return None
            self.read += more
        end = 2 + int.from_bytes(self.read[:2], "little")
        data, self.read = self.read[2:end], self.read[end:]
        return data

    def is_closed(self):
        while self.next() is not None:
            pass
        return True


class Plainly(FleetOfTwo):
    def setUp(self):
        super().setUp()
        self.open = []
        self.addCleanup(lambda: [each.socket.close() for each in self.open])

    def connect(self, source="127.0.0.1", room=None):
        self.open.append(Connection.to(self.peer, source, room))
        return self.open[-1]

    def metric(self, name):
        return int(self.metrics().get(name, 0))

    def closed_for(self, reason):
        return self.metric(f'tallyd_tcp_closed_total{{reason="{reason}"}}')

    def accepted(self):
        return self.metric('tallyd_tcp_connections{opened="there"}')

    def memory(self):
        fields = pathlib.Path(f"/proc/{self.daemon.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def sanitized(self):
        """Sanitizers keep what was freed, so memory says nothing."""
        return re.search("lib[at]san", pathlib.Path(f"/proc/{self.daemon.process.pid}/maps").read_text()) is not None

    def good(self, *entries, node=None):
        """A frame of the node's."""
        node = node or self.node
        with node.lock:
            return frame(node.bytes_to(self.peer, *(entries or [Entry("hello")])))

    def heard(self, connection, name, **values):
        """The next entry on it of that name and those values."""
        while True:
            data = connection.next()
            if data is None:
                closed = {name: value for name, value in self.metrics().items() if "tcp_" in name and value}
                self.fail(f"closed: {closed}\n{self.dropped()}\n{self.daemon.text()}")
            if not data:
                continue
            datagram = decode(unseal(data, self.node.keys) if self.secret else data, self.node.key)
            self.assertEqual(datagram.header.receiver, self.node.id)
            said = [entry for entry in datagram.entries if entry.name == name and all(getattr(entry, field) == value for field, value in values.items())]
            if said:
                return said[0]

    def serves(self):
        """A node that has the right to it is answered, whatever else goes on."""
        connection = self.connect()
        connection.send(self.good())
        self.heard(connection, "hello", answer=1)
        return connection

    # --- what is right ---

    def test_a_good_frame_is_answered_on_its_connection_and_the_peer_is_spoken_to_there(self):
        self.begin()
        connection = self.serves()
        self.heard(connection, "member")
        self.assertEqual(self.accepted(), 1)
        self.assertEqual(self.metric(f'tallyd_peer_transport{{peer="{self.node.entry}",transport="tcp"}}'), 1)
        data = self.good(Entry("hello", remembered=7))
        for part in (data[:1], data[1:30], data[30:]):
            connection.send(part)
        self.heard(connection, "hello", answer=1)
        self.nothing_was_dropped()

    def test_both_say_that_they_hear_the_other_by_udp_and_then_speak_by_udp(self):
        self.fleet()
        self.both_are_up()
        connection = self.connect()
        connection.send(self.good())
        while connection.next() != b"":  # it hears the node by UDP
            pass
        end = time.monotonic() + WAIT_S
        while self.metric(f'tallyd_peer_transport{{peer="{self.node.entry}",transport="udp"}}') == 0:
            self.assertLess(time.monotonic(), end)
            connection.send(frame(b""))
        self.assertTrue(connection.is_closed())  # nobody uses it any more

    def test_the_daemon_connects_to_a_peer_that_it_does_not_hear(self):
        with self.door() as door:
            self.begin()
            connection = Connection(door.accept()[0])
            self.open.append(connection)
            self.assertEqual(self.heard(connection, "hello").answer, 0)
            connection.send(self.good(Entry("hello", answer=1, rules=self.node.rules, life=self.life())))
            self.until(lambda: self.metric(f'tallyd_peer_up{{peer="{self.node.entry}"}}') == 1, "not up")
            self.assertEqual(connection.socket.getpeername()[0], "127.0.0.1")

    def door(self):
        """Where the node hears TCP; it is another node where its port is not free for that."""
        while True:
            try:
                made = socket.create_server(("127.0.0.1", int(self.node.entry.rsplit(":", 1)[1])))
                made.settimeout(WAIT_S)
                return made
            except OSError:
                self.node.socket.close()
                self.node = Node(secret=self.secret)
                self.addCleanup(self.node.stop)
                self.entries = [self.peer, self.node.entry]
                self.node.join(self.entries)

    def life(self):
        table = Plain(self.daemon).ask("TALLY.PEERS")
        row = dict(zip([name.decode() for name in table[1][::2]], table[1][1::2]))
        other = dict(zip([name.decode() for name in table[3][::2]], table[3][1::2]))
        return row["incarnation"] if row["self"] else other["incarnation"]

    # --- who has no business there ---

    def test_garbage_closes_its_connection_with_the_first_frame(self):
        self.begin()
        garbage = [frame(os.urandom(n)) for n in (1, 12, 60, LONGEST)] + [frame(b""), os.urandom(100_000).replace(b"\0", b"\1"), frame(b"")[:1] + b"\xff" * 3,
                                                                           (LONGEST + 1).to_bytes(2, "little"), b"\xff\xff", frame(self.good()[2:-1])]
        for n, data in enumerate(garbage, 1):
            connection = self.connect()
            with contextlib.suppress(ConnectionError):
                connection.send(data)
            self.assertTrue(connection.is_closed())
            self.assertEqual(self.closed_for("malformed"), n)
        self.assertEqual(self.dropped()["tcp_malformed"], len(garbage))
        self.serves()

    def test_what_is_longer_than_a_datagram_closes_a_known_connection_too(self):
        self.begin()
        connection = self.serves()
        connection.send((LONGEST + 1).to_bytes(2, "little"))
        self.assertTrue(connection.is_closed())
        self.assertEqual(self.closed_for("malformed"), 1)
        self.serves()

    def test_who_says_nothing_or_half_a_frame_is_not_kept(self):
        self.begin()
        some = [self.connect() for _ in range(4)]
        for connection, data in zip(some, (b"", b"\x20", b"\x20\0", self.good()[:-1])):
            connection.send(data)
        self.assertTrue(all(connection.is_closed() for connection in some))
        self.assertEqual((self.closed_for("unknown"), self.accepted()), (4, 0))

    def test_a_thousand_connections_keep_no_peer_out_and_take_no_memory(self):
        self.begin()
        self.serves()
        before = self.memory()
        for n in range(3):
            for _ in range(1000):
                self.connect().send(b"\x20")
            self.assertLessEqual(self.accepted(), UNKNOWN_MAX + 1)
            self.serves()
            for connection in self.open:
                connection.socket.close()
            self.open.clear()
        if not self.sanitized():
            self.assertLess(self.memory() - before, 4 << 20)
        self.until(lambda: self.accepted() == 0, "kept")

    def test_a_name_from_an_address_that_is_not_its_own_is_refused(self):
        self.begin()
        known = self.serves()
        elsewhere = self.connect("127.0.0.9")
        elsewhere.send(self.good())
        self.assertEqual(self.heard(elsewhere, "clone").elsewhere, 1)  # and is told so, as the true one lives
        self.assertEqual(self.dropped(), {"wrong_source": 1})
        known.send(self.good())
        self.heard(known, "hello", answer=1)
        self.assertTrue(elsewhere.is_closed())

    def test_a_newer_connection_of_a_peer_takes_the_place_of_the_older(self):
        self.begin()
        older = self.serves()
        newer = self.serves()
        self.assertTrue(older.is_closed())
        newer.send(self.good())
        self.heard(newer, "hello", answer=1)
        self.assertEqual((self.closed_for("replaced"), self.accepted()), (1, 1))

    def test_a_peer_that_asks_and_does_not_read_costs_a_bounded_queue(self):
        self.begin()
        connection = self.connect(room=4096)
        keys = (f"user:{n}" for n in range(100_000))
        owned = [key for key in (next(keys) for _ in range(1000)) if self.node.group("login", key)[0] == self.node.entry]
        for key in owned:
            id_, window = self.place(key)
            connection.send(self.good(Entry("mark", key=id_, window=window, ballot=(0, self.node.id), mark=1, length=DAY_NS)))
        self.until(lambda: self.metric("tallyd_registers") == len(owned), "not all kept")
        before, end = None, time.monotonic() + WAIT_S
        enough = 1_000 if self.sanitized() else 30_000  # of 1,400 bytes; each question is answered by some twenty
        while (dropped := self.dropped().get("tcp_queue_full", 0)) < enough:
            self.assertLess(time.monotonic(), end)
            before = before or (self.memory() if dropped else None)  # with one queue full
            for _ in range(5):
                try:
                    connection.send(self.good(Entry("read_registers", life=self.node.incarnation, **{"from": 0})))
                except ConnectionError:  # nothing of what it was sent was acknowledged: it was given up
                    connection = self.connect(room=4096)
        if not self.sanitized():
            self.assertLess(self.memory() - before, QUEUE_MAX + (24 << 20))  # what it makes of a batch of questions before it is dropped
        self.serves()

    def test_a_flood_of_good_frames_holds_up_nobody(self):
        self.begin()
        connection = self.serves()
        flood = frame(b"") * 4096
        for _ in range(50):
            connection.send(flood)
            while select.select([connection.socket], [], [], 0)[0] and connection.socket.recv(65536):
                pass
        connection.read = b""
        self.assertEqual(Plain(self.daemon).ask("PING"), "PONG")
        self.nothing_was_dropped()


class Sealed(Plainly):
    sealed = True

    def test_another_secret_is_a_stranger(self):
        self.begin()
        connection = self.connect()
        with self.node.lock:
            other = seal(unseal(self.node.bytes_to(self.peer, Entry("hello")), self.node.keys), bytes(range(32)))
        connection.send(frame(other) * 100)
        self.assertTrue(connection.is_closed())
        self.assertEqual(self.dropped(), {"unknown_key": 1, "tcp_malformed": 1})

    def test_a_recording_says_nothing_twice(self):
        self.begin()
        connection = self.serves()
        said = self.good()
        connection.send(said)
        self.heard(connection, "hello")
        connection.send(said)
        self.until(lambda: self.dropped() == {"replayed": 1}, "taken in twice")


if __name__ == "__main__":
    processes.main(sys.argv)
