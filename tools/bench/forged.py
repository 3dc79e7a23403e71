#!/usr/bin/env python3
"""What a datagram costs a daemon that drops it: forged.py TALLYD TALLY

One daemon of two on loopback with a secret file, the other entry is this program, which has no secret: it sends datagrams of each kind
from there, as fast as the daemon takes them, and divides the daemon's CPU time (utime + stime of the process, what it needs without them
subtracted) by how many the daemon counted as dropped. The figures of docs/security.md.
"""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

COUNT = 200_000
ROUNDS = 3
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def metrics(http):
    text = urllib.request.urlopen(f"http://{http}/metrics", timeout=10).read().decode()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}


def dropped(http, reason):
    return metrics(http).get(f'tallyd_sync_dropped_total{{reason="{reason}"}}', 0)


def measure(out, to, pid, http, reason, make):
    before, used, sent, begun = dropped(http, reason), cpu_s(pid), 0, time.monotonic()
    while sent < COUNT:
        for _ in range(64):
            out.sendto(make(sent), to)
            sent += 1
        if sent % 4096 == 0:  # no more than the socket holds: what the kernel drops costs the daemon nothing
            while dropped(http, reason) - before < sent * 0.98 and time.monotonic() - begun < 60:
                time.sleep(0.001)
    elapsed, cost = time.monotonic() - begun, cpu_s(pid) - used
    idle_from, idle = cpu_s(pid), time.monotonic()
    time.sleep(2)
    idle_rate = (cpu_s(pid) - idle_from) / (time.monotonic() - idle)
    counted = dropped(http, reason) - before
    return (cost - idle_rate * elapsed) / counted * 1e6, counted / elapsed


def main(tallyd, tally):
    with tempfile.TemporaryDirectory(prefix="tally-") as folder, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        folder = pathlib.Path(folder)
        subprocess.run([tally, "secret", folder / "secret"], check=True, stdout=subprocess.DEVNULL)
        out.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            own = free.getsockname()
        peers = [f"127.0.0.1:{own[1]}", f"127.0.0.1:{out.getsockname()[1]}"]
        (folder / "config").write_text(json.dumps({
            "node": {"state_dir": str(folder)}, "workers": 1, "table": {"keys": 4096},
            "listen": {"resp": [f"unix:{folder}/sock"], "http": ["127.0.0.1:0"]},
            "cluster": {"bind": peers[0], "peers": peers, "secret_file": str(folder / "secret")}}))
        with open(folder / "log", "wb") as log:
            daemon = subprocess.Popen([tallyd, "-c", folder / "config"], stdout=log, stderr=log)
        try:
            serving = None
            while serving is None:
                serving = re.search(r"serving HTTP address=(\S+)", (folder / "log").read_text())
                time.sleep(0.01)
            http = serving.group(1)
            genuine = out.recv(2048)  # a question of the daemon's: what an attacker on the way sees
            clear = genuine[:7]
            noise = os.urandom(1400)
            kinds = [
                ("107 bytes of noise", "bad_magic", lambda n: noise[:107]),
                ("107 bytes under another secret", "unknown_key", lambda n: b"Ts\1\0\0\0\0" + noise[:100]),
                ("107 bytes under this secret's fingerprint", "forged", lambda n: clear + noise[:100]),
                ("1,400 bytes under this secret's fingerprint", "forged", lambda n: clear + noise[:1393]),
                ("the daemon's own, sent back to it", "reflected", lambda n: genuine),
            ]
            for text, reason, make in kinds:
                rounds = sorted(measure(out, own, daemon.pid, http, reason, make) for _ in range(ROUNDS))
                cost, rate = rounds[ROUNDS // 2]
                print(f"{text}: {cost:.1f} us of CPU each ({rounds[0][0]:.1f} to {rounds[-1][0]:.1f}), at {rate:,.0f} a second", flush=True)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()


if __name__ == "__main__":
    main(*sys.argv[1:3])
