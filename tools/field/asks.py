"""Asks daemons for keys at a rate, spread over the nodes, and keeps when each answer came and what it said.

A plan that is fixed beforehand (tally_load) can't follow nodes that die, hang and come back at moments that are found while
it runs; this can, at a few thousand asks a second. One thread owns all connections; whoever made a stream sets its rate and
reads its answers.
"""
import random
import selectors
import socket
import threading
import time
from typing import NamedTuple

from fleet import DemoError

LONGEST_SLEEP_S = 0.005
RECONNECT_S = 0.02  # how often a node that is gone is tried


class Answer(NamedTuple):
    node: str
    sent: float  # wall clock, as the windows are
    at: float
    admitted: bool
    reason: int = 0  # of a denial


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in (str(word).encode() for word in words))


class Connection:
    """To one node, for one stream: nothing else waits behind its replies."""

    def __init__(self, node, selector):
        self.node, self.selector = node, selector
        self.pending, self.incoming, self.outgoing = [], b"", b""
        self.socket = socket.socket(socket.AF_UNIX)
        try:
            self.socket.connect(str(node.socket))
        except OSError:
            self.socket.close()
            raise
        self.socket.setblocking(False)
        selector.register(self.socket, selectors.EVENT_READ, self)

    def ask(self, request, count, now):
        self.outgoing += request * count
        self.pending += [now] * count
        self.flush()

    def flush(self):
        try:
            while self.outgoing:
                self.outgoing = self.outgoing[self.socket.send(self.outgoing):]
        except BlockingIOError:
            pass  # a node that hangs; tried again with the next ask

    def receive(self):
        """[(sent, fields), ...]; raises OSError where the node is gone."""
        try:
            more = self.socket.recv(65536)
        except BlockingIOError:
            return []
        if not more:
            raise ConnectionResetError
        lines = (self.incoming + more).split(b"\r\n")
        at, found = 0, []
        while at < len(lines) - 1:
            if lines[at][:1] == b"-":
                raise DemoError(f"{self.node.name} answered: {lines[at].decode(errors='replace')}")
            end = at + 1 + int(lines[at][1:])
            if end > len(lines) - 1:
                break
            found.append((self.pending.pop(0), [int(line[1:]) for line in lines[at + 1:end]]))
            at = end
        self.incoming = b"\r\n".join(lines[at:])
        self.flush()
        return found

    def close(self):
        self.selector.unregister(self.socket)
        self.socket.close()


class Stream:
    """Asks for one key: `rate` a second on the average, each at a node drawn at random."""

    def __init__(self, nodes, rule, key, rate, seed):
        self.nodes, self.rule, self.key, self.rate = nodes, rule, key, rate
        self.answers = []
        self.lost = 0      # sent, and the node was gone before it answered
        self.request = command("TALLY.TAKE", rule, key)
        self.at_once = 0   # asks to send now, beside the rate
        self.ended = False
        self.random = random.Random(seed)
        self.due = time.time()
        self.connections = {}
        self.not_before = {}

    def burst(self, count):
        self.at_once += count

    def pause(self):
        self.rate = 0

    def go(self, rate):
        self.due = time.time()
        self.rate = rate

    def send_due(self, now, selector):
        """Returns when the next one is due."""
        if self.at_once:
            count, self.at_once = self.at_once, 0
            for i, node in enumerate(self.nodes):
                self._ask(node, count // len(self.nodes) + (i < count % len(self.nodes)), now, selector)
        rate = self.rate
        while rate and self.due <= now:
            self._ask(self.random.choice(self.nodes), 1, now, selector)
            self.due += self.random.expovariate(rate)
        return self.due if rate else now + LONGEST_SLEEP_S

    def _ask(self, node, count, now, selector):
        connection = self.connections.get(node.name)
        try:
            if connection is None:
                if now < self.not_before.get(node.name, 0):
                    raise ConnectionRefusedError
                self.not_before[node.name] = now + RECONNECT_S
                connection = self.connections[node.name] = Connection(node, selector)
                connection.stream = self
            connection.ask(self.request, count, now)
        except OSError:
            self._drop(node)  # whoever asks there is as gone as the node

    def take_answers(self, connection):
        try:
            found = connection.receive()
        except OSError:
            return self._drop(connection.node)
        now = time.time()
        for sent, fields in found:
            self.answers.append(Answer(connection.node.name, sent, now, fields[0] == 0, fields[5]))

    def _drop(self, node):
        connection = self.connections.pop(node.name, None)
        if connection is not None:
            self.lost += len(connection.pending)
            connection.close()

    def close(self):
        for connection in list(self.connections.values()):
            self._drop(connection.node)


class Asker(threading.Thread):
    """Sends what all streams are due, takes what comes back."""

    def __init__(self):
        super().__init__(daemon=True)
        self.selector = selectors.DefaultSelector()
        self.streams, self.problem, self._end = [], None, False
        self._lock = threading.Lock()
        self.start()

    def stream(self, nodes, rule, key, rate, seed):
        made = Stream(nodes, rule, key, rate, seed)
        with self._lock:
            self.streams = [*self.streams, made]
        return made

    def run(self):
        try:
            while not self._end:
                self._turn()
        except Exception as problem:  # for the main thread to hear of
            self.problem = problem

    def _turn(self):
        for stream in self.streams:
            if stream.ended:
                stream.close()
        with self._lock:
            self.streams = [stream for stream in self.streams if not stream.ended]
        now = time.time()
        due = [stream.send_due(now, self.selector) for stream in self.streams]
        timeout = min([LONGEST_SLEEP_S, *(at - now for at in due)])
        for key, _ in self.selector.select(max(timeout, 0.0002)):
            if key.fileobj.fileno() >= 0:  # not closed by an answer just before
                key.data.stream.take_answers(key.data)

    def check(self):
        if self.problem:
            raise DemoError(f"the load ended: {self.problem!r}")

    def stop(self):
        self._end = True
        self.join()
        for stream in self.streams:
            stream.close()
