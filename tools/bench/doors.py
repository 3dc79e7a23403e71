#!/usr/bin/env python3
"""What a limit adds to a request through a proxy: tally by Lua, the proxy's own limit, and none, in turns; see --help. Ends every process that it started."""
import argparse
import getpass
import os
import random
import shutil
import socket
import sys
import time
from typing import Callable, NamedTuple

sys.dont_write_bytecode = True
from figures import ended, goal, show_goals, spread, turns, write  # noqa: E402
from servers import HERE, DemoError, Servers, last_lines, wait_for  # noqa: E402
from fleet import Workplace  # noqa: E402

CONF = HERE.parent.parent / "conf"
RULES = [{"name": "api", "limit": 2147483648, "window": "1h"}]  # all requests are admitted: what is measured is the question
MODULES = "/usr/lib/nginx/modules"
WARM_UP = 200  # requests of each measurement that are not counted
ADDED_US = {"nginx, tally by Lua": {"p50": 40, "p99": 100}, "HAProxy, tally by Lua": {"p50": 60, "p99": 200}}  # what is to be reached, at most

NGINX = """
load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_lua_module.so;
{user}
daemon off;
master_process off;  # one process, which dies with the benchmark
pid {place}/{name}.pid;
error_log {place}/{name}.log;
events {{ }}
http {{
  access_log off;
  keepalive_requests 10000000;
  client_body_temp_path {place}/{name}.body;
  proxy_temp_path {place}/{name}.proxy;
  fastcgi_temp_path {place}/{name}.fastcgi;
  uwsgi_temp_path {place}/{name}.uwsgi;
  scgi_temp_path {place}/{name}.scgi;
  {http}
  server {{ listen {listen}; location / {{ {location} empty_gif; }} }}
}}
"""
HAPROXY = """
global
  nbthread 1
  {settings}
defaults
  mode http
  timeout connect 5s
  timeout client 1m
  timeout server 1m
frontend web
  bind {listen}
  {rules}
  http-request return status 200 content-type text/plain string "hello"
"""


class Door(NamedTuple):
    name: str
    beside: str | None                  # the same proxy without a limit; None: it is that
    start: Callable[["Bench", str], str]  # of its name, returns where it listens; every GET /?k=KEY is answered 200


def nginx(http="", location=""):
    def start(bench, name):
        file = name.replace(" ", "-").replace(",", "")
        listen = bench.port()
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
        config = bench.place.path / f"{file}.conf"
        config.write_text(NGINX.format(modules=MODULES, user=user, place=bench.place.path, name=file, http=bench.adapted(http), location=location, listen=listen))
        return bench.serve([bench.program("nginx"), "-e", bench.place.path / f"{file}.log", "-c", config], file, listen)
    return start


def haproxy(settings="", rules=""):
    def start(bench, name):
        file = name.replace(" ", "-").replace(",", "")
        listen = bench.port()
        config = bench.place.path / f"{file}.cfg"
        config.write_text(HAPROXY.format(settings=bench.adapted(settings), rules=rules, listen=listen))
        return bench.serve([bench.program("haproxy"), "-db", "-f", config], file, listen)
    return start


def tally_conf():
    """What the page on integrations has people install, with its paths."""
    text = (CONF / "nginx/tally.conf").read_text()
    return text.replace("/etc/nginx/tally/", f"{CONF}/lua/").replace("deadline_ms = 50", "deadline_ms = 5000").replace('"open"', '"closed"')


DOORS = [
    Door("nginx", None, nginx()),
    Door("nginx, limit_req", "nginx", nginx("limit_req_zone $arg_k zone=keys:32m rate=1000000r/s;", "limit_req zone=keys burst=1000000 nodelay;")),
    Door("nginx, tally by Lua", "nginx", nginx(tally_conf(), 'access_by_lua_block { tally:limit { { rule = "api", key = ngx.var.arg_k } } }')),
    Door("HAProxy", None, haproxy()),
    Door("HAProxy, stick table", "HAProxy", haproxy(rules="""stick-table type string len 32 size 1m expire 1m store http_req_rate(1m)
  http-request track-sc0 url_param(k)
  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000 }""")),
    Door("HAProxy, tally by Lua", "HAProxy", haproxy(f"""setenv TALLY_SOCKET /run/tallyd/tallyd.sock
  setenv TALLY_DEADLINE_MS 5000
  lua-prepend-path {CONF}/lua/?.lua
  lua-load-per-thread {CONF}/haproxy/tally_haproxy.lua""", """http-request set-var(txn.key) url_param(k)
  http-request lua.tally api=txn.key
  http-request return status 429 if { var(txn.tally) -m str limited }
  http-request return status 503 unless { var(txn.tally) -m found }
  http-after-response set-header RateLimit %[var(txn.tally_limits)] if { var(txn.tally) -m found }""")),
]


def arguments():
    parser = argparse.ArgumentParser(prog="tools/bench/doors.sh", description="How long a request takes through nginx and HAProxy: without a limit, with the one "
                                     "that they have built in, and with tally by Lua. One kept connection, one request after the other, random keys.")
    parser.add_argument("--build", default="build")
    parser.add_argument("--json", help="where the figures go, as JSON")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=5000, help="of each measurement")
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-pin", action="store_true", help="do not pin the proxies and tallyd to one core and the client to another")
    return parser.parse_args()


class Bench:
    def __init__(self, place, options):
        self.place, self.options = place, options
        try:  # for us and all that we start: then a p99 is the doors', not that of whatever else runs here
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        except PermissionError:
            print("no right to a real-time priority (root has it): p99 is also of whatever else runs here", file=sys.stderr)
        self.servers = Servers(place, not options.no_pin)
        self.tallyd = self.servers.tallyd(rules=RULES)
        if self.servers.generator_pin:
            os.sched_setaffinity(0, {int(self.servers.generator_pin[2])})
        self.addresses = {door.name: door.start(self, door.name) for door in DOORS}
        self.rounds = []

    def port(self):
        with socket.socket() as probe:
            probe.bind((self.place.address, 0))
            return f"{self.place.address}:{probe.getsockname()[1]}"

    def program(self, name):
        found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if found is None:
            raise DemoError(f"{name} is not installed: tools/bench/doors.sh does that")
        return found

    def adapted(self, text):
        return text.replace("/run/tallyd/tallyd.sock", self.tallyd.path)

    def serve(self, words, name, listen):
        child = self.place.start([*self.servers.server_pin, *map(str, words)], name)
        host, port = listen.split(":")

        def accepts():
            with socket.socket() as probe:
                return probe.connect_ex((host, int(port))) == 0
        wait_for(lambda: not child.alive() or accepts(), f"{name} did not start")
        if not child.alive():
            raise DemoError(f"{name} ended at once: {last_lines(child.log)}")
        return listen

    def measure(self, number, name):
        host, port = self.addresses[name].split(":")
        dice = random.Random(self.options.seed + number)
        requests = [b"GET /?k=%d HTTP/1.1\r\nHost: bench\r\n\r\n" % dice.randrange(self.options.keys) for _ in range(WARM_UP + self.options.requests)]
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            times = sorted([exchange(connection, request, name) for request in requests][WARM_UP:])
        row = {"round": number, "door": name, "p50_us": times[len(times) // 2], "p99_us": times[len(times) * 99 // 100]}
        self.rounds.append(row)
        print(f"round {number + 1}: {name:<24} p50 {row['p50_us']:7.1f} us, p99 {row['p99_us']:7.1f} us", file=sys.stderr, flush=True)

    def of(self, name):
        return sorted((row for row in self.rounds if row["door"] == name), key=lambda row: row["round"])

    def summary(self):
        rows = []
        for door in DOORS:
            mine, bare = self.of(door.name), self.of(door.beside or door.name)
            rows.append({"door": door.name, "beside": door.beside, **{figure: spread([row[figure] for row in mine]) for figure in ("p50_us", "p99_us")},
                         **{f"added_{figure}": spread([row[figure] - other[figure] for row, other in zip(mine, bare)]) for figure in ("p50_us", "p99_us")}})
        return rows


def exchange(connection, request, name):
    """Microseconds from the request to the last byte of its response."""
    begun = time.perf_counter_ns()
    connection.sendall(request)
    data = connection.recv(65536)
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536) or fail(name, data)
    head, body = data.split(b"\r\n\r\n", 1)
    length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    while len(body) < length:
        body += connection.recv(65536) or fail(name, data)
    taken = (time.perf_counter_ns() - begun) / 1000
    if not data.startswith(b"HTTP/1.1 200 "):
        fail(name, data)
    return taken


def fail(name, data):
    raise DemoError(f"{name} answered {data[:200]!r}")


def show(rows, goals):
    def text(figure):
        return f"{figure['median']:8.1f} ({figure['least']:.1f} to {figure['most']:.1f})"
    print(f"\n{'door':<24}{'p50 us (spread)':<30}{'p99 us (spread)':<30}{'added p50 us (spread)':<30}added p99 us (spread)")
    for row in rows:
        added = [text(row[f"added_{figure}"]) for figure in ("p50_us", "p99_us")] if row["beside"] else ["", ""]
        print(f"{row['door']:<24}{text(row['p50_us']):<30}{text(row['p99_us']):<30}{added[0]:<30}{added[1]}")
    print()
    show_goals(goals)


def measure_all(options):
    place = Workplace(options.build)
    try:
        bench = Bench(place, options)
        print(f"{options.rounds} rounds of {options.requests} requests, {options.keys} random keys; servers on {' '.join(bench.servers.server_pin[2:]) or 'any'} core, "
              f"client on {' '.join(bench.servers.generator_pin[2:]) or 'any'}; load average {os.getloadavg()[0]:.1f}", flush=True)
        for number, name in turns(options.rounds, [door.name for door in DOORS]):
            bench.measure(number, name)
        rows = bench.summary()
        goals = [goal(f"{row['door']}: {figure} added to {row['beside']}, us", most, row[f"added_{figure}_us"]["median"])
                 for row in rows for figure, most in ADDED_US.get(row["door"], {}).items()]
        show(rows, goals)
        write(options, summary=rows, goals=goals, rounds=bench.rounds)
    finally:
        place.close()


if __name__ == "__main__":
    chosen = arguments()
    sys.exit(ended(lambda: measure_all(chosen)))
