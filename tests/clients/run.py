#!/usr/bin/env python3
"""Real Redis clients against a real tallyd: run.py --client NAME --tallyd FILE [--hiredis FILE] [--modules FOLDER]

Each client connects in its own way, sends 150 CL.THROTTLE calls in one pipeline to a limit of 100 and 150 TALLY.TAKE calls to
a rule of 100, and must see exactly 100 admitted each; then it asks what it asks elsewhere (peek, give, reset, maps, errors). One line is
printed for each client. A client that is not installed is a failure, and says what to install.
"""
import argparse
import fcntl
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

sys.dont_write_bytecode = True  # the sources' folder stays as it is
from server import Plain, Server, ServerError, encode  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
CLIENT_S = 60  # for one run of a client
THROTTLE = ["99", "1", "3600"]  # 100 at once, one more an hour


class ClientError(Exception):
    """A client did not see what it should have seen."""


def expect(what, seen, expected):
    if seen != expected:
        raise ClientError(f"{what}: {seen!r} instead of {expected!r}")


def program(name, package):
    found = shutil.which(name)
    if found is None:
        raise ClientError(f"{name} is not installed (Debian: apt-get install {package})")
    return found


def run(words, stdin=b""):
    done = subprocess.run(words, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=CLIENT_S)
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0 or done.stderr:
        raise ClientError(f"{' '.join(words)} ended with {done.returncode}\n{text}{done.stderr.decode(errors='replace')}")
    return text


# --- redis-cli ---

def redis_cli(server, _):
    cli = [program("redis-cli", "redis-tools"), "-s", server.socket]
    lines = "CL.THROTTLE cli 99 1 3600\n" * 150 + "TALLY.TAKE login cli\n" * 150
    numbers = [int(n) for n in run(cli, lines.encode()).split()]
    expect("numbers in 300 replies", len(numbers), 150 * 5 + 150 * 6)
    throttled = [numbers[i:i + 5] for i in range(0, 750, 5)]
    taken = [numbers[i:i + 6] for i in range(750, 1650, 6)]
    check_throttled(throttled)
    check_taken(taken)

    # Mass insertion: 150 commands written without waiting for a reply.
    tcp = [cli[0], "-h", "127.0.0.1", "-p", str(server.port)]
    pipe = run(tcp + ["--pipe"], encode("CL.THROTTLE", "cli-pipe", *THROTTLE) * 150)
    expect("the end of --pipe", pipe.strip().splitlines()[-1], "errors: 0, replies: 150")
    expect("the key after --pipe", run(cli + ["CL.THROTTLE", "cli-pipe", *THROTTLE, "0"]).split()[:3], ["0", "100", "0"])

    expect("INFO", "redis_mode:standalone" in run(cli + ["INFO", "server"]), True)
    expect("TALLY.PEEK", run(cli + ["TALLY.PEEK", "login", "cli"]).split()[:3], ["1", "100", "0"])
    expect("TALLY.RESET", run(cli + ["TALLY.RESET", "login", "cli"]).strip(), "OK")
    expect("TALLY.TAKE after it", run(cli + ["TALLY.TAKE", "login", "cli"]).split()[:3], ["0", "100", "99"])
    expect("DEL", run(cli + ["DEL", "cli", "cli-none"]).strip(), "1")
    expect("an unknown rule", run(cli + ["TALLY.TAKE", "lgoin", "cli"]).strip(),
           "NORULE no rule 'lgoin'; did you mean 'login'?")
    rules = run(cli + ["-3", "--json", "TALLY.RULES"])
    expect("TALLY.RULES as JSON", '"login":{"algorithm":"fixed_window","limit":100,' in rules.replace(" ", ""), True)
    redis_cli_by_hand(cli)
    return "150 + 150 by stdin, 150 by --pipe over TCP, RESP3 as JSON, by hand with help and hints"


def redis_cli_by_hand(cli):
    """On a terminal redis-cli loads COMMAND DOCS and shows the arguments of a command as one types."""
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))  # or it asks the terminal for its size
        os.execve(cli[0], cli, dict(os.environ, TERM="xterm", HOME="/nonexistent"))
    try:
        typed = Terminal(terminal)
        prompt = b"t.sock> "
        typed.wait_for(prompt)  # what is typed before it may be thrown away
        typed.type(b"help CL.THROTTLE\r")
        typed.wait_for(b"Takes from a key's limit")
        typed.wait_for(prompt)
        typed.type(b"CL.THROTTLE by-hand ")
        typed.wait_for(b"max_burst count period [quantity]")  # the hint behind the cursor
        typed.type(b"99 1 3600\r")
        typed.wait_for(b"5) (integer) 3600")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


class Terminal:
    """What a program shows on its terminal, read in order."""

    def __init__(self, fd):
        self.fd = fd
        self.shown = b""

    def type(self, text):
        os.write(self.fd, text)

    def wait_for(self, wanted):
        deadline = time.monotonic() + CLIENT_S
        while wanted not in self.shown:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                raise ClientError(f"waited in vain for {wanted!r}, saw {self.shown!r}")
            self.shown += os.read(self.fd, 4096)
        self.shown = self.shown.partition(wanted)[2]


def check_throttled(replies):
    expect("replies to CL.THROTTLE", len(replies), 150)
    expect("admitted by CL.THROTTLE", sum(reply[0] == 0 for reply in replies), 100)
    expect("the first reply", replies[0], [0, 100, 99, -1, 3600])
    expect("the first that was limited", replies[100][:3], [1, 100, 0])
    if not 0 < replies[100][3] <= 3600:
        raise ClientError(f"retry_after of the first that was limited: {replies[100]}")


def check_taken(replies):
    expect("replies to TALLY.TAKE", len(replies), 150)
    expect("admitted by TALLY.TAKE", sum(reply[0] == 0 for reply in replies), 100)
    expect("the first reply", [replies[0][i] for i in (0, 1, 2, 3, 5)], [0, 100, 99, -1, 0])
    expect("the first that was limited", [replies[100][i] for i in (0, 1, 2, 5)], [1, 100, 0, 1])


# --- redis-benchmark ---

def redis_benchmark(server, _):
    # One more in 5 minutes: none comes back while this runs.
    program_path = program("redis-benchmark", "redis-tools")
    benchmark = [program_path, "-s", server.socket, "-q"]
    tcp = [program_path, "-h", "127.0.0.1", "-p", str(server.port), "-q"]
    calls, limit = 20_000, 100_000
    out = run(benchmark + ["-c", "20", "-P", "16", "-n", str(calls), "CL.THROTTLE", "bench", str(limit - 1), "1", "300"])
    rate = re.findall(r"([0-9.]+) requests per second", out)
    if len(rate) != 1:
        raise ClientError(f"redis-benchmark gave no rate:\n{out}")
    run(tcp + ["-c", "20", "-P", "16", "-n", str(calls), "TALLY.TAKE", "big", "bench"])
    plain = Plain(server)
    expect("what CL.THROTTLE has left", plain.ask("CL.THROTTLE", "bench", limit - 1, 1, 300, 0)[:3],
           [0, limit, limit - calls])
    expect("what TALLY.TAKE has left", plain.ask("TALLY.PEEK", "big", "bench")[:3], [0, 1_000_000, 1_000_000 - calls])
    plain.close()
    out = run(benchmark + ["-c", "4", "-P", "4", "-n", "400", "-t", "ping"])
    expect("PING inline and not", [name in out for name in ("PING_INLINE", "PING_MBULK")], [True, True])
    run(benchmark + ["-c", "4", "-P", "4", "-n", "400", "--threads", "2", "-3", "PING"])
    return f"2 x {calls} in pipelines of 16, every one counted, one run over TCP; inline, threads and RESP3"


# --- clients that are programs of their own ---

def hiredis(server, options):
    if not options.hiredis or not pathlib.Path(options.hiredis).exists():
        raise ClientError("the hiredis client was not built (Debian: apt-get install libhiredis-dev)")
    return run([options.hiredis, server.socket]).strip()


def python(server, _):
    interpreter = sys.executable
    if subprocess.run([interpreter, "-c", "import redis"], stderr=subprocess.DEVNULL).returncode != 0:
        interpreter = "/usr/bin/python3"  # Debian's packages are this one's, whatever python3 comes first
        if subprocess.run([interpreter, "-c", "import redis"], stderr=subprocess.DEVNULL).returncode != 0:
            raise ClientError("python3-redis is not installed (Debian: apt-get install python3-redis)")
    return run([interpreter, str(HERE / "python_client.py"), server.socket]).strip()


def node(server, options, package, script):
    modules = pathlib.Path(options.modules or ".") / "node_modules"
    if not (modules / package).is_dir():
        raise ClientError(f"{package} is not in {modules} (the test clients_npm_install puts it there)")
    return run([program("node", "nodejs"), str(HERE / script), server.socket, str(modules.parent)]).strip()


def ioredis(server, options):
    return node(server, options, "ioredis", "ioredis_client.mjs")


def node_redis(server, options):
    return node(server, options, "redis", "node_redis_client.mjs")


CLIENTS = {f.__name__: f for f in (redis_cli, redis_benchmark, hiredis, python, ioredis, node_redis)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--client", choices=[*CLIENTS, "all"], default="all")
    parser.add_argument("--tallyd", required=True)
    parser.add_argument("--hiredis", help="the program built from hiredis_client.cc")
    parser.add_argument("--modules", help="the folder that has node_modules")
    options = parser.parse_args()
    failed = False
    for name in CLIENTS if options.client == "all" else [options.client]:
        try:
            with Server(options.tallyd) as server:
                said = CLIENTS[name](server, options)
            print(f"{name}: ok: {said}")
        except (ClientError, ServerError, OSError, subprocess.TimeoutExpired) as error:
            print(f"{name}: FAILED: {error}")
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
