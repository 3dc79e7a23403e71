"""One node of a fleet, by docs/protocol.md alone: a socket, a thread, and what it answers."""
import select
import socket
import threading
import time

import hashes
from member import Member
from seal import seal, unseal
from wire import Entry, Refused, decode, encode

WAIT_S = 60


def likes(wanted, value):
    return wanted(value) if callable(wanted) else wanted == value


class Node:
    """Says hello back, keeps a register of marks, gossips. What else it says, tests and an Owner decide.

    `answers`: entry name -> function(entry, header) -> entries to send back; runs on the node's thread, under its lock.
    """

    def __init__(self, entries=(), size=0, secret=None, version=1):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.entry = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.secret = secret  # the lines of a secret file, or None
        self.key = secret["id"] if secret else hashes.PUBLIC_ID
        self.keys = [secret[word] for word in ("seal", "next", "old") if word in secret] if secret else []
        self.incarnation = time.time_ns() // 1_000_000
        self.rules = 0  # fingerprint
        self.lock = threading.Condition()
        self.heard, self.refused, self.sent = [], [], []  # datagrams; reasons; bytes
        self._sequences, self._newest, self._echoes = {}, {}, {}
        self.answers = {"hello": self.answer_hello, "read_registers": self.tell_registers}
        self.member = Member(self)
        self.answers["mark"] = self.member.on_mark
        self.newer = False  # writes as a later version would
        self._end, self._thread = threading.Event(), threading.Thread(target=self._run)
        self.join(entries or [self.entry], size, version)

    def join(self, entries, size=0, version=1):
        self.entries, self.size, self.version = sorted(entries), size or len(entries), version
        self.roster_hash = hashes.roster_hash(self.size, self.entries, [], self.key)
        self.ids = {entry: hashes.node_id(entry, self.key) for entry in self.entries}
        self.names = {id_: entry for entry, id_ in self.ids.items()}
        self.id = hashes.node_id(self.entry, self.key)
        self.rosters = {(self.version, self.roster_hash)}  # that it listens to

    def start(self):
        self._thread.start()
        return self

    def stop(self):
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        self.socket.close()

    # --- keys ---

    def group(self, rule, key):
        return hashes.group(hashes.key_id(rule, key, self.key), self.entries, self.key)

    def key_owned_by(self, rule, entry):
        return next(key for key in (f"user:{i}" for i in range(1000)) if self.group(rule, key)[0] == entry)

    # --- what goes out ---

    def header_to(self, entry):
        now = time.monotonic_ns()
        echo, at = self._echoes.get(entry, (0, now))
        self._sequences[entry] = self._sequences.get(entry, 0) + 1
        return Entry("header", sender=self.id, receiver=hashes.node_id(entry, self.key), incarnation=self.incarnation,
                     roster_version=self.version, roster_hash=self.roster_hash, sequence=self._sequences[entry], sent_mono=now,
                     sent_wall=time.time_ns(), echo_mono=echo, echo_held=now - at)

    def bytes_to(self, entry, *entries, header=None, **how):
        plain = encode(header or self.header_to(entry), entries, self.key, newer=self.newer, **how)
        return seal(plain, self.secret["seal"]) if self.secret else plain

    def send_bytes(self, entry, data, through=None):
        host, port = entry.rsplit(":", 1)
        self.sent.append(data)
        (through or self.socket).sendto(data, (host, int(port)))

    def send(self, entry, *entries):
        with self.lock:
            self.send_bytes(entry, self.bytes_to(entry, *entries))

    # --- what comes in ---

    def _run(self):
        gossip_at = 0
        while not self._end.is_set():
            if select.select([self.socket], [], [], 0.02)[0]:
                data, (host, port) = self.socket.recvfrom(4096)
                with self.lock:
                    self.take(data, f"{host}:{port}")
                    self.lock.notify_all()
            if time.monotonic() >= gossip_at:
                gossip_at = time.monotonic() + 0.1
                for entry in self.entries:
                    if entry != self.entry:
                        self.send(entry, Entry("member", node=self.id, incarnation=self.incarnation))

    def take(self, data, source):
        try:
            datagram = decode(unseal(data, self.keys) if self.secret else data, self.key)
        except Refused as refused:
            self.refused.append(str(refused))
            return
        header = datagram.header
        if header.receiver != self.id or self.names.get(header.sender) != source or \
                (header.roster_version, header.roster_hash) not in self.rosters:
            self.refused.append("foreign")
            return
        datagram.data = data
        self.heard.append(datagram)
        newest = self._newest.get(source, (0, 0))
        if (header.incarnation, header.sequence) > newest:
            self._newest[source] = (header.incarnation, header.sequence)
            self._echoes[source] = (header.sent_mono, time.monotonic_ns())
        back = [answer for entry in datagram.entries for answer in self.answers.get(entry.name, lambda *_: ())(entry, header)]
        if back:
            self.send_bytes(source, self.bytes_to(source, *back))

    def answer_hello(self, hello, header):
        if hello.answer:
            return []
        return [Entry("hello", answer=1, rules=self.rules, life=header.incarnation)]

    def tell_registers(self, read, _):
        return self.member.tell(read)

    # --- for tests ---

    def said(self, name, **values):
        """All entries of that name and those values (or that a function of the value likes) that were heard so far."""
        return [entry for datagram in list(self.heard) for entry in datagram.entries
                if entry.name == name and all(likes(value, getattr(entry, field)) for field, value in values.items())]

    def wait_for(self, what, said):
        with self.lock:
            if not self.lock.wait_for(what, WAIT_S):
                heard = [repr(datagram) for datagram in self.heard if {entry.name for entry in datagram.entries} != {"member"}]
                raise AssertionError("\n".join([f"{said}; heard:", *heard[-20:], f"refused: {self.refused[-20:]}"]))
            return what()

    def ask(self, entry, question, name, **values):
        """Says the question every now and then until there is such an answer, as a lessee does; returns that."""
        end = time.monotonic() + WAIT_S
        while True:
            self.send(entry, question())
            with self.lock:
                if self.lock.wait_for(lambda: self.said(name, **values), 0.05):
                    return self.said(name, **values)[0]
            if time.monotonic() > end:
                return self.hear(name, **values)

    def hear(self, name, **values):
        """The first such entry, once it is there."""
        return self.wait_for(lambda: self.said(name, **values), f"no {name} {values} came")[0]
