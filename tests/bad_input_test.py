#!/usr/bin/env python3
"""Bad input on the RESP socket of a real tallyd: bad_input_test.py TALLYD

Malformed commands of every sort, halves of commands, one byte at a time, 100,000 random byte strings, connections dropped in
the middle of replies: the daemon gives the error that it promises, closes what it must and nothing else, goes on, and loses no
count. TALLY_SEED replays the random part; TALLY_TEST_SCALE (percent) makes it shorter.
"""
import errno
import os
import pathlib
import random
import select
import socket
import sys
import time
import unittest

sys.dont_write_bytecode = True  # the sources' folder stays as it is
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "clients"))
from server import Plain, Replies, Server, encode  # noqa: E402

TALLYD = None
SEED = int(os.environ.get("TALLY_SEED", "0"), 0) or 20260117
SCALE = int(os.environ.get("TALLY_TEST_SCALE", "100"))
WAIT_S = 60

PING = encode("PING")
PONG = b"+PONG\r\n"


def exchange(server, data, pieces=None, tcp=False):
    """Sends `data` (in pieces of so many bytes), says that no more comes, returns all that came back."""
    with server.connect(WAIT_S, tcp) as connection:
        if tcp:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for at in range(0, len(data), pieces or max(len(data), 1)):
                connection.sendall(data[at:at + (pieces or len(data))])
            connection.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                raise
            # It has closed already; what it said is still there.
        return read_all(connection)


def read_all(connection):
    back = b""
    while True:
        try:
            more = connection.recv(65536)
        except ConnectionResetError:  # it closed with bytes of ours unread
            return back
        if not more:
            return back
        back += more


def protocol_error(text):
    return b"-ERR Protocol error: " + text.encode() + b"\r\n"


MALFORMED = [
    (b"*x\r\n", "invalid multibulk length"),
    (b"*\r\n", "invalid multibulk length"),
    (b"*01\r\n", "invalid multibulk length"),
    (b"*+1\r\n", "invalid multibulk length"),
    (b"*1\n$4\nPING\n", "invalid multibulk length"),
    (b"*1025\r\n", "invalid multibulk length"),
    (b"*2147483648\r\n", "invalid multibulk length"),
    (b"*99999999999999999999", "invalid multibulk length"),
    (b"*1\r\n$x\r\n", "invalid bulk length"),
    (b"*1\r\n$-1\r\n", "invalid bulk length"),
    (b"*1\r\n$-5\r\n", "invalid bulk length"),
    (b"*1\r\n$65537\r\n", "invalid bulk length"),
    (b"*1\r\n$536870913\r\n", "invalid bulk length"),
    (b"*1\r\n$99999999999999999999", "invalid bulk length"),
    (b"*1\r\n$3\r\nPING\r\n", "invalid bulk length"),
    (b"*1\r\n$4\r\nPINGPING", "invalid bulk length"),
    (b"*1\r\nx", "expected '$', got 'x'"),
    (b"*1\r\n:1\r\n", "expected '$', got ':'"),
    (b"*1\r\n+PING\r\n", "expected '$', got '+'"),
    (b"*2\r\n$4\r\nPING\r\n*1\r\n", "expected '$', got '*'"),
    (b"*1\r\n%1\r\n", "expected '$', got '%'"),
    (b"*1\r\n\r\n", "expected '$', got '\\x0d'"),
    (b"PING \"x\r\n", "unbalanced quotes in request"),
    (b"PING 'x\r\n", "unbalanced quotes in request"),
    (b"PING \"x\"y\r\n", "unbalanced quotes in request"),
    (b"x" * 65537, "too big inline request"),
    (b"x" * 200000 + b"\r\n", "too big inline request"),
]

WRONG = [  # the connection goes on
    (encode("NOSUCH", "a"), b"-ERR unknown command 'NOSUCH', with args beginning with: 'a' \r\n"),
    (encode("CL.THROTTLE", "k", 1), b"-ERR wrong number of arguments for 'cl.throttle' command\r\n"),
    (encode("CL.THROTTLE", "k", 1, 0, 1),
     b"-ERR value is not an integer or out of range: count must be 1 or more, got '0'\r\n"),
    (encode("CL.THROTTLE", "k", 1, 1, 9223372037),
     b"-ERR value is not an integer or out of range: period must be 9223372036 at most, got '9223372037'\r\n"),
    (encode("CL.THROTTLE", "k" * 1025, 1, 1, 1), b"-ERR a key must have 1 to 1024 bytes, got 1025\r\n"),
    (encode("CL.THROTTLE", "", 1, 1, 1), b"-ERR a key must have 1 to 1024 bytes, got 0\r\n"),
    (encode("TALLY.TAKE", "lgoin", "k"), b"-NORULE no rule 'lgoin'; did you mean 'login'?\r\n"),
    (encode("TALLY.TAKE", "login", "k", "-1"),
     b"-ERR value is not an integer or out of range: cost must be 0 or more, got '-1'\r\n"),
    (encode("HELLO", 4), b"-NOPROTO unsupported protocol version\r\n"),
    (encode(*["x"] * 1024), None),
]

FRAGMENTS = [b"*1\r\n", b"*3\r\n", b"*-1\r\n", b"*0\r\n", b"$4\r\nPING\r\n", b"$-1\r\n", b"$3\r\n", b"*", b"$", b"\r\n",
             b"\r", b"\n", b"0", b"9", b"-", b"\"", b"'", b"PING ", b" ", b"\x00", b"\xff", encode("PING"),
             encode("CL.THROTTLE", "noise", 9, 1, 1), encode("TALLY.TAKE", "big", "noise"), encode("DEL", "noise"),
             encode("COMMAND"), encode("HELLO", 3), encode("QUIT"), encode("RESET"), b"POST / HTTP/1.1\r\n"]


def random_string(source):
    kind = source.randrange(3)
    if kind == 0:
        return source.randbytes(source.randrange(1, 200))
    data = b"".join(source.choice(FRAGMENTS) for _ in range(source.randrange(1, 12)))
    if kind == 1:
        return data
    data = bytearray(data)
    for _ in range(source.randrange(1, 4)):
        data[source.randrange(len(data))] = source.randrange(256)
    return bytes(data)


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        print(f"TALLY_SEED={SEED}")
        cls.server = Server(TALLYD)
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)  # checks that it lives, and leaves with 0

    def setUp(self):
        self.plain = Plain(self.server)

    def tearDown(self):
        self.assertEqual("PONG", self.plain.ask("PING"), "the connection beside goes on")
        self.plain.close()

    def left(self, rule, key):
        return self.plain.ask("TALLY.PEEK", rule, key)[2]

    def connections(self):
        return int(dict(line.split(":", 1) for line in self.plain.ask("INFO", "clients").decode().split("\r\n")
                        if ":" in line)["connected_clients"])

    def settled(self):
        """Waits until this test's own connection is the only one: whatever was dropped has been seen to."""
        deadline = time.monotonic() + WAIT_S
        while self.connections() != 1:
            self.assertLess(time.monotonic(), deadline, "connections that were dropped are still counted")

    def test_each_malformed_command_gets_its_error_and_the_connection_is_closed(self):
        for data, text in MALFORMED:
            with self.subTest(data[:40]):
                self.assertEqual(PONG + protocol_error(text), exchange(self.server, PING + data + PING))

    def test_each_malformed_command_gets_the_same_byte_by_byte(self):
        for data, text in MALFORMED:
            if len(data) < 100:
                with self.subTest(data):
                    self.assertEqual(PONG + protocol_error(text), exchange(self.server, PING + data, pieces=1))

    def test_each_malformed_command_gets_the_same_over_tcp(self):
        for data, text in MALFORMED:
            if len(data) < 100:
                with self.subTest(data):
                    self.assertEqual(PONG + protocol_error(text), exchange(self.server, PING + data, pieces=3, tcp=True))

    def test_a_wrong_command_gets_its_error_and_the_connection_goes_on(self):
        for data, reply in WRONG:
            with self.subTest(data[:60]):
                back = exchange(self.server, data + PING)
                self.assertTrue(back.endswith(PONG), back)
                self.assertTrue(back.startswith(b"-"), back)
                if reply is not None:
                    self.assertEqual(reply + PONG, back)

    def test_null_and_empty_commands_are_skipped(self):
        self.assertEqual(PONG * 2, exchange(self.server, b"*0\r\n*-1\r\n\r\n  \r\n" + PING + b"*-7\r\nPING\r\n"))

    def test_half_a_command_waits_and_costs_nothing_when_the_connection_ends(self):
        whole = encode("TALLY.TAKE", "login", "half", 10)
        for cut in range(len(whole)):
            self.assertEqual(PONG, exchange(self.server, PING + whole[:cut]), whole[:cut])
        self.assertEqual(100, self.left("login", "half"))
        with self.server.connect(WAIT_S) as connection:
            connection.sendall(whole[:20])
            self.assertEqual(100, self.left("login", "half"))
            connection.sendall(whole[20:])
            self.assertEqual([0, 100, 90], Replies(connection).next()[:3])

    def test_a_pipeline_byte_by_byte_is_answered_like_the_whole(self):
        def pipeline(key):
            return (encode("CL.THROTTLE", key, 9, 1, 3600) * 12 + b"PING\r\n" + encode("TALLY.TAKE", "login", key, 60) * 2 +
                    b"ECHO \"a b\"\r\n" + encode("HELLO", 3) + encode("TALLY.PEEK", "login", key) + encode("RESET") +
                    encode("NOSUCH"))
        whole = exchange(self.server, pipeline("whole"))
        self.assertEqual(10, whole.count(b":0\r\n:10\r\n"))
        single = exchange(self.server, pipeline("bytes"), pieces=1)
        self.assertEqual(whole.count(b"\r\n"), single.count(b"\r\n"))
        differing = [(a, b) for a, b in zip(whole.split(b"\r\n"), single.split(b"\r\n")) if a != b]
        # Only clocks and connection numbers may differ: an integer each.
        self.assertTrue(all(a[:1] == b":" == b[:1] for a, b in differing), differing)

    def test_a_command_with_the_longest_key_and_the_most_arguments_is_taken(self):
        key = b"\xff" * 1024
        self.assertEqual([0, 100, 99], self.plain.ask("TALLY.TAKE", "login", key)[:3])
        self.assertEqual(1, self.plain.ask("DEL", *[b"none"] * 1022, self._throttled(b"last")))

    def _throttled(self, key):
        self.plain.ask("CL.THROTTLE", key, 9, 1, 3600)
        return key

    def test_http_is_turned_away(self):
        back = exchange(self.server, b"POST /take HTTP/1.1\r\nHost: localhost\r\n\r\nTALLY.TAKE login http 100\r\n")
        self.assertEqual(b"-ERR this port speaks RESP, not HTTP\r\n", back)
        self.assertEqual(100, self.left("login", "http"))

    def test_what_stands_behind_quit_is_not_read(self):
        back = exchange(self.server, encode("QUIT") + encode("TALLY.TAKE", "login", "quit"))
        self.assertEqual(b"+OK\r\n", back)
        self.assertEqual(100, self.left("login", "quit"))

    def test_connections_dropped_in_mid_reply_lose_no_count(self):
        """What was answered was counted, what was counted was sent: over many connections that end at any point."""
        source = random.Random(SEED)
        call = encode("TALLY.TAKE", "big", "dropped")
        answered = sent = 0
        for _ in range(300 * SCALE // 100):
            with self.server.connect(WAIT_S) as connection:
                n = source.randrange(1, 400)
                connection.sendall(call * n + call[:source.randrange(len(call))])
                sent += n
                replies = Replies(connection)
                for _ in range(source.randrange(0, n + 1)):
                    self.assertEqual(0, replies.next()[0])
                    answered += 1
        self.settled()
        counted = 1_000_000 - self.left("big", "dropped")
        self.assertLessEqual(answered, counted)
        self.assertLessEqual(counted, sent)
        # And beside all that a limit is a limit: many connections, each dropped after its first reply or two.
        admitted = 0
        for _ in range(50):
            with self.server.connect(WAIT_S) as connection:
                connection.sendall(encode("TALLY.TAKE", "login", "dropped-too") * 5)
                replies = Replies(connection)
                admitted += sum(replies.next()[0] == 0 for _ in range(source.randrange(0, 3)))
        self.settled()
        self.assertLessEqual(admitted, 100)
        self.assertEqual(0, self.left("login", "dropped-too"))

    def test_a_client_that_does_not_read_is_held_back_and_gets_all_once_it_reads(self):
        """Replies far beyond any socket buffer: the daemon stops reading instead of storing without end."""
        n, words = 4_000, 1_000
        call = encode("ECHO", "x" * words)
        reply = b"$%d\r\n%s\r\n" % (words, b"x" * words)
        data, back, sent = call * n, 0, 0
        with self.server.connect(WAIT_S) as connection:
            connection.setblocking(False)
            while True:  # writes until the daemon takes no more, or all is written
                if sent == len(data) or not select.select([], [connection], [], 0.2)[1]:
                    break
                sent += connection.send(data[sent:sent + 65536])
            self.assertEqual("PONG", self.plain.ask("PING"), "other connections go on")
            while back < n * len(reply):
                readable, writable, _ = select.select([connection], [connection] if sent < len(data) else [], [], WAIT_S)
                self.assertTrue(readable or writable, "neither takes nor gives")
                if writable:
                    sent += connection.send(data[sent:sent + 65536])
                if readable:
                    chunk = connection.recv(1 << 20)
                    self.assertTrue(chunk, "closed")
                    back += len(chunk)
        self.assertEqual(n * len(reply), back)

    def test_random_byte_strings_never_stop_it(self):
        source = random.Random(SEED)
        taken = 0
        total, at_once = max(100_000 * SCALE // 100, 64), 64
        closed_by_error = 0
        for _ in range(total // at_once + 1):
            connections = []
            for _ in range(at_once):
                connection = self.server.connect(WAIT_S)
                connections.append(connection)
                try:
                    connection.sendall(random_string(source))
                    if source.random() < 0.8:
                        connection.shutdown(socket.SHUT_WR)
                    else:
                        connection.close()  # without a word
                except (BrokenPipeError, ConnectionResetError):
                    pass
            taken += self.plain.ask("TALLY.TAKE", "big", "beside")[0] == 0
            for connection in connections:
                if connection.fileno() >= 0:
                    closed_by_error += b"-ERR Protocol error: " in read_all(connection)
                    connection.close()
        self.assertGreater(closed_by_error, total // 20)  # or the strings test nothing
        self.assertTrue(self.server.alive())
        self.settled()
        self.assertEqual(1_000_000 - taken, self.left("big", "beside"))


if __name__ == "__main__":
    TALLYD = sys.argv.pop(1)
    unittest.main(verbosity=2)
