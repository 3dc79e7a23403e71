"""A name server for tests, and a place where the daemon asks it: a network and a /etc of the test's own.

`enter()` puts the running test into new namespaces for the network and for mounts (unshare), where resolv.conf names a server on
loopback. Nothing of it is seen outside, and it ends with the test. The daemon is configured by what it reads everywhere.
"""
import fcntl
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading

A, AAAA, SRV, CNAME = 1, 28, 33, 5
NXDOMAIN = 3
_INSIDE = "TALLY_TEST_NAMESPACE"
_ETC = {"resolv.conf": "nameserver 127.0.0.1\nsearch tally.test\n", "hosts": "127.0.0.1 localhost\n127.0.0.77 by-hosts-file\n",
        "nsswitch.conf": "hosts: files dns\n"}


def _covered(name):
    """What a file of /etc is in the end: some are links to others."""
    return os.path.realpath("/etc/" + name)


def enter():
    """Returns "" inside; runs the test anew to get there. Where the machine does not allow it, says why."""
    if os.environ.get(_INSIDE):
        _furnish()
        return ""
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return "unshare or mount is not installed"
    if not os.path.exists(_covered("resolv.conf")):
        return "there is no /etc/resolv.conf that could be covered"
    words = ["unshare", "--mount", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    tried = subprocess.run([*words, "mount", "--bind", "/etc", "/etc"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if tried.returncode != 0:
        return tried.stderr.strip()
    os.execvpe("unshare", [*words, sys.executable, *sys.argv], dict(os.environ, **{_INSIDE: "yes"}))


def _furnish():
    up = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, up)  # SIOCSIFFLAGS
    with tempfile.TemporaryDirectory(prefix="tally-etc-") as folder:  # what is mounted stays when its name is gone
        for name, text in _ETC.items():
            path = pathlib.Path(folder, name)
            path.write_text(text)
            path.chmod(0o644)
            if os.path.exists(_covered(name)):
                subprocess.run(["mount", "--bind", str(path), _covered(name)], check=True)


def use_servers(*addresses):
    """What resolv.conf says from now on."""
    with open("/etc/resolv.conf", "w") as file:  # in place: another file of that name would not be what is mounted
        file.write("".join(f"nameserver {address}\n" for address in addresses) + "search tally.test\n")


def _name(text):
    return b"".join(bytes([len(label)]) + label.encode() for label in text.rstrip(".").split(".") if label) + b"\0"


def _read_name(data, at):
    labels = []
    while data[at]:
        labels.append(data[at + 1:at + 1 + data[at]].decode().lower())
        at += 1 + data[at]
    return ".".join(labels), at + 1


def _data(kind, value):
    if kind == A:
        return socket.inet_aton(value)
    if kind == AAAA:
        return socket.inet_pton(socket.AF_INET6, value)
    if kind == CNAME:
        return _name(value)
    priority, weight, port, target = value
    return struct.pack(">HHH", priority, weight, port) + _name(target)


class NameServer:
    """Answers on UDP from `records`: {name: {type: [value...]}}, a name that is not there with NXDOMAIN. May be changed at any time."""

    def __init__(self, address="127.0.0.1"):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        self._changed = threading.Condition()
        self._records, self._mute, self.asked = {}, False, {}
        self._ended = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def say(self, name, **records):
        """say("edge-1.test", A=["127.0.0.2"]); without records the name is gone."""
        with self._changed:
            kinds = {"A": A, "AAAA": AAAA, "SRV": SRV, "CNAME": CNAME}
            self._records.pop(name, None)
            if records:
                self._records[name] = {kinds[kind]: values for kind, values in records.items()}

    def mute(self, mute):
        with self._changed:
            self._mute = mute

    def wait_asked(self, name, more, patience_s):
        """Until the name was asked for `more` times from now on."""
        with self._changed:
            until = self.asked.get(name, 0) + more
            if not self._changed.wait_for(lambda: self.asked.get(name, 0) >= until, patience_s):
                raise AssertionError(f"{name} was not asked for: {self.asked}")

    def close(self):
        self._ended = True
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bell:
            bell.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self):
        while True:
            data, source = self._socket.recvfrom(4096)
            if self._ended:
                return
            name, end = _read_name(data, 12)
            kind = struct.unpack(">H", data[end:end + 2])[0]
            with self._changed:
                self.asked[name] = self.asked.get(name, 0) + 1
                self._changed.notify_all()
                reply = None if self._mute else self._answer(data, name, kind, end + 4)
            if reply:
                self._socket.sendto(reply, source)

    def _answer(self, data, name, kind, end):
        records = self._records.get(name)
        answers = []
        while records and kind != CNAME and CNAME in records:
            answers.append((name, CNAME, records[CNAME][0]))
            name = records[CNAME][0]
            records = self._records.get(name)
        code = NXDOMAIN if records is None else 0
        if records:
            answers += [(name, kind, value) for value in records.get(kind, ())]
        body = b"".join(_name(of) + struct.pack(">HHIH", what, 1, 0, len(_data(what, value))) + _data(what, value)
                        for of, what, value in answers)
        return data[:2] + struct.pack(">HHHHH", 0x8580 | code, 1, len(answers), 0, 0) + data[12:end] + body
