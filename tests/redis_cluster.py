"""A Redis Cluster on loopback, for tests: masters of equal parts of the slots, each with a replica where one is wanted."""
import time

from processes import WAIT_S, Plain, free_ports
from redis_server import Redis

SLOTS = 16384


def slot_of(name):
    """Of the part in braces, as Redis counts (CRC16 of XMODEM)."""
    crc = 0
    for byte in name[name.index("{") + 1:name.index("}")].encode():
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc % SLOTS


def until(what, said=lambda: ""):
    end = time.monotonic() + WAIT_S
    while not what():
        if time.monotonic() > end:
            raise AssertionError(f"what was waited for does not come: {said()}")


class Member:
    """One server of it. `ask` speaks to this one, whoever has the slot."""

    def __init__(self, folder, name, password, settings):
        self.port, bus = free_ports(2)
        # In doubt for so long that a machine that is busy ends none.
        own = [("cluster-enabled", "yes"), ("cluster-port", str(bus)), ("cluster-node-timeout", "5000"), ("cluster-require-full-coverage", "no"),
               ("repl-diskless-sync-delay", "0")]
        if password:
            own += [("requirepass", password), ("masterauth", password)]
        self.server = Redis(folder, name, port=self.port, settings=[*own, *settings])
        self.bus, self._plain = bus, Plain(self.server)
        if password:
            self.ask("AUTH", password)
        self.id = self.ask("CLUSTER", "MYID").decode()

    def ask(self, *words):
        return self._plain.ask(*(str(word) for word in words))

    def info(self, section):
        lines = self.ask("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def calls(self, command):
        """How often it was carried out here."""
        told = self.info("commandstats").get("cmdstat_" + command, "calls=0")
        return int(told.split("calls=")[1].split(",")[0])


class RedisCluster:
    def __init__(self, case, masters=3, replicas=False, password="", settings=()):
        def member(name):
            one = Member(case.folder, name, password, settings)
            case.addCleanup(one.server.end)
            return one

        self.password = password
        self.masters = [member(f"master-{i}") for i in range(masters)]
        self.replicas = [member(f"replica-{i}") for i in range(masters)] if replicas else []
        members = self.masters + self.replicas
        for i, one in enumerate(self.masters):
            one.ask("CLUSTER", "ADDSLOTSRANGE", SLOTS * i // masters, SLOTS * (i + 1) // masters - 1)
            one.ask("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for one in members[1:]:
            members[0].ask("CLUSTER", "MEET", "127.0.0.1", one.port, one.bus)
        until(lambda: all(self.well(one) and int(one.ask("CLUSTER", "INFO").decode().split("cluster_known_nodes:")[1].split()[0]) == len(members) for one in members))
        for master, replica in zip(self.masters, self.replicas):
            until(lambda to=master, of=replica: of.ask("CLUSTER", "REPLICATE", to.id) == "OK")
        for replica in self.replicas:
            until(lambda of=replica: of.info("replication").get("master_link_status") == "up", lambda of=replica: of.info("replication"))
        # Until everybody says of each who replicates it: before that none would be promoted.
        until(lambda: all(one.ask("CLUSTER", "NODES").decode().count(" slave ") + one.ask("CLUSTER", "NODES").decode().count("myself,slave") == len(self.replicas) for one in members))

    def well(self, member):
        return b"cluster_state:ok" in member.ask("CLUSTER", "INFO")

    def url(self, password=""):
        places = ",".join(f"127.0.0.1:{one.port}" for one in self.masters)
        return f"redis-cluster://{':' + password + '@' if password else ''}{places}"

    def master_of(self, slot):
        """Who has the slot, as the first of them that is alive says."""
        alive = next(one for one in self.masters + self.replicas if one.server.process.poll() is None)
        port = next(master[1] for first, last, master, *_ in alive.ask("CLUSTER", "SLOTS") if first <= slot <= last)
        return next(one for one in self.masters + self.replicas if one.port == port)

    def begin_move(self, slot):
        """From who has the slot to the next master: (from, to). Calls for what is not there any more are sent on with ASK."""
        source = self.master_of(slot)
        target = self.masters[(self.masters.index(source) + 1) % len(self.masters)]
        for one, state, other in ((target, "IMPORTING", source), (source, "MIGRATING", target)):
            answer = one.ask("CLUSTER", "SETSLOT", slot, state, other.id)
            assert answer == "OK", answer
        return source, target

    def move_names(self, slot, source, target):
        """All that are there now."""
        login = ("AUTH", self.password) if self.password else ()
        while names := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            answer = source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 10_000, *login, "KEYS", *(name.decode() for name in names))
            assert answer in ("OK", "NOKEY"), answer

    def end_move(self, slot, target):
        for one in (target, *(other for other in self.masters if other is not target)):
            answer = one.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)
            assert answer == "OK", answer
