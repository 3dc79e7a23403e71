#!/usr/bin/env python3
"""A network of our own for real processes: each host a network namespace with one TUN device, and packets.py between them.

    with Network(["a", "b"]) as network:
        network.set("a", "b", delay=30, loss=0.05)   # one way; "*" or "a,b" for several; all of packets.py's settings
        network.cut("*", "b"); network.join("*", "b"); network.cut("a", "b", "udp")
        subprocess.Popen(network.words("a", ["tallyd", ...]))   # runs inside of host a
        network.socket("b", socket.AF_INET)                     # a UDP socket of ours inside of host b

Hosts have the addresses 10.77.0.N and, where the kernel has IPv6, fd00::N (N: 1 for the first), and reach only each other. Nothing of it has a name in
the system: a namespace is held by descriptors alone, a device by the relay's. So all of it is gone when this process ends, however it ends.

As a program it measures how many packets a second the relay carries: network.py [SECONDS]
"""
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIOCGIFINDEX, SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8933, 0x8913, 0x8914
SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFTXQLEN = 0x8916, 0x891C, 0x8943
IFF_UP = 1
DEVICE = b"tun0"
DEVICE_QUEUE = 1000  # packets that wait for the relay; what comes beyond the kernel drops
HOSTS_MAX = 250
END_S = 5

_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """This machine lacks what a network needs; the text says what: TUN, namespaces, rights."""


class NetworkError(Exception):
    """The relay refused a command or is gone."""


class Host:
    def __init__(self, name, number):
        self.name, self.ipv4, self.ipv6 = name, f"10.77.0.{number}", f"fd00::{number:x}"
        self.namespace = self.device = None

    def addresses(self):
        return [self.ipv4, self.ipv6] if self.ipv6 else [self.ipv4]


def _call(what, result):
    if result != 0:
        number = ctypes.get_errno()
        raise Unavailable(f"{what}: {os.strerror(number)} (network namespaces need root, or CAP_SYS_ADMIN and CAP_NET_ADMIN)")


@contextlib.contextmanager
def _inside(namespace):
    """This thread is in the namespace (None: in a new one), and afterwards where it was."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if namespace is None:
            _call("unshare(CLONE_NEWNET)", _libc.unshare(CLONE_NEWNET))
        else:
            _call("setns", _libc.setns(namespace, CLONE_NEWNET))
        try:
            yield
        finally:
            _call("setns back", _libc.setns(home, CLONE_NEWNET))
    finally:
        os.close(home)


def _tun():
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise Unavailable(f"no TUN: /dev/net/tun: {problem.strerror}") from None
    try:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", DEVICE, IFF_TUN | IFF_NO_PI))
    except OSError as problem:
        os.close(device)
        raise Unavailable(f"no TUN: TUNSETIFF: {problem.strerror}") from None
    return device


def _ifreq_address(address, name=DEVICE):
    return struct.pack("16sHH4s16x", name, socket.AF_INET, 0, socket.inet_aton(address))


def _up(control, name):
    flags = struct.unpack("16xH22x", fcntl.ioctl(control, SIOCGIFFLAGS, struct.pack("16s24x", name)))[0]
    fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", name, flags | IFF_UP))


def _configure(host):
    """Addresses, and the devices up; inside of the host's namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _up(control, b"lo")
        fcntl.ioctl(control, SIOCSIFADDR, _ifreq_address(host.ipv4))
        fcntl.ioctl(control, SIOCSIFNETMASK, _ifreq_address("255.255.255.0"))
        fcntl.ioctl(control, SIOCSIFTXQLEN, struct.pack("16si20x", DEVICE, DEVICE_QUEUE))
        _up(control, DEVICE)
        index = struct.unpack("16xi20x", fcntl.ioctl(control, SIOCGIFINDEX, struct.pack("16s24x", DEVICE)))[0]
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, SIOCSIFADDR, struct.pack("16sIi", socket.inet_pton(socket.AF_INET6, host.ipv6), 64, index))
    except OSError as problem:
        if problem.errno not in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM):
            raise
        host.ipv6 = None  # the kernel has none, or it is switched off


def _relay_child(parent):
    def before_exec():
        _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    return before_exec


class Network:
    def __init__(self, names, seed=1):
        names = list(names)
        if not 1 <= len(names) <= HOSTS_MAX or len(set(names)) != len(names):
            raise ValueError(f"1 to {HOSTS_MAX} hosts of different names")
        self.hosts = {name: Host(name, number) for number, name in enumerate(names, 1)}
        self.relay = None
        self._turn = threading.Lock()  # questions of several threads do not mix
        try:
            for host in self.hosts.values():
                self._make(host)
            self._start(seed)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _make(host):
        with _inside(None):
            host.namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            host.device = _tun()
            _configure(host)

    def _start(self, seed):
        hosts = self.hosts.values()
        words = [sys.executable, str(pathlib.Path(__file__).resolve().with_name("packets.py")), str(seed),
                 *(f"{host.name}={host.device}={','.join(host.addresses())}" for host in hosts)]
        self.relay = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                                      pass_fds=[host.device for host in hosts], preexec_fn=_relay_child(os.getpid()))
        for host in hosts:
            os.close(host.device)
            host.device = None
        self.count()  # it is there

    @property
    def has_ipv6(self):
        return all(host.ipv6 for host in self.hosts.values())

    def ask(self, line):
        with self._turn:
            try:
                self.relay.stdin.write(line + "\n")
                self.relay.stdin.flush()
                answer = self.relay.stdout.readline().rstrip("\n")
            except OSError as problem:
                raise NetworkError(f"the relay is gone: {problem}") from None
        if not answer or answer.startswith("error"):
            raise NetworkError(answer or "the relay is gone")
        return answer

    def set(self, senders, receivers, **settings):
        self.ask(" ".join(["set", senders, receivers, *(f"{name}={value}" for name, value in settings.items())]))

    def cut(self, senders, receivers, protocol=""):
        """All, or "udp" or "tcp" alone."""
        self.ask(f"cut {senders} {receivers} {protocol}")

    def join(self, senders, receivers):
        self.ask(f"join {senders} {receivers}")

    def split(self, some, others):
        """No packet between the one side and the other, in either direction."""
        self.cut(some, others)
        self.cut(others, some)

    def count(self):
        """{"FROM TO": {"passed": n, "lost": n, ...}}, only links that were used."""
        return json.loads(self.ask("count"))

    def words(self, host, words):
        """The command that runs `words` inside of the host; same process, so its pid is the program's."""
        enter = shutil.which("nsenter")
        if not enter:
            raise Unavailable("no nsenter (util-linux), which starts processes in namespaces")
        return [enter, f"--net=/proc/{os.getpid()}/fd/{self.hosts[host].namespace}", "--", *map(str, words)]

    def listener(self, host):
        made = self.socket(host, socket.AF_INET, socket.SOCK_STREAM)
        made.listen()
        return made

    def socket(self, host, family, kind=socket.SOCK_DGRAM):
        """A UDP socket (or another) inside of the host, bound to its address and a free port."""
        with _inside(self.hosts[host].namespace):
            made = socket.socket(family, kind)
        address = self.hosts[host].ipv4 if family == socket.AF_INET else self.hosts[host].ipv6
        made.bind((address, 0))
        return made

    def close(self):
        if self.relay:
            for pipe in (self.relay.stdin, self.relay.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
            try:
                self.relay.wait(END_S)
            except subprocess.TimeoutExpired:
                self.relay.kill()
                self.relay.wait()
            self.relay = None
        for host in self.hosts.values():
            for descriptor in (host.namespace, host.device):
                if descriptor is not None:
                    os.close(descriptor)
            host.namespace = host.device = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def rate(network, seconds, **settings):
    """(sent, arrived) packets a second through the relay, of 100 bytes, as fast as one sender can."""
    network.set("*", "*", **settings)
    with network.socket("a", socket.AF_INET) as out, network.socket("b", socket.AF_INET) as into:
        into.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        before = network.count().get("a b", {"passed": 0})["passed"]
        data, to, sent, begun = bytes(100), into.getsockname(), 0, time.monotonic()
        while time.monotonic() - begun < seconds:
            for _ in range(32):
                out.sendto(data, to)
            sent += 32
        elapsed = time.monotonic() - begun
        return sent / elapsed, (network.count()["a b"]["passed"] - before) / elapsed


def main(words):
    seconds = float(words[1]) if len(words) > 1 else 3
    try:
        with Network(["a", "b"]) as network:
            for name, settings in (("plain", {}), ("a delay of 30 ms", {"delay": 30, "queue": 20000})):
                sent, carried = rate(network, seconds, **settings)
                print(f"{name:<18} {sent:9,.0f} packets/s sent, {carried:9,.0f} carried")
    except Unavailable as problem:
        sys.exit(f"unavailable: {problem}")


if __name__ == "__main__":
    main(sys.argv)
