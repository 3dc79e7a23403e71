"""Real proxies of the distribution in front of real daemons, for tests: installed as docs/integrations.md says, below a temporary folder, on free
ports of the loopback, ended by their pids. A package that is missing is a failure, which says so."""
import concurrent.futures
import contextlib
import getpass
import http.client
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from processes import WAIT_S, Case, Plain, free_ports  # noqa: E402

PAGE = ROOT / "docs" / "integrations.md"
LIMIT = 100
# A token an hour: what is used up stays so while a test runs, and what is left is exact.
API = {"name": "api", "algorithm": "token_bucket", "rate": "1/h", "burst": LIMIT}
LOGIN = {"name": "login", "algorithm": "token_bucket", "rate": "1/h", "burst": 5}
HOUR_S = 3600
LONG_MS = 20_000  # a deadline that nothing is expected to reach


def program(name, package):
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise AssertionError(f"{name} is not installed (Debian: apt-get install {package})")
    return found


def module(path, package):
    if not pathlib.Path(path).exists():
        raise AssertionError(f"{path} is not there (Debian: apt-get install {package})")
    return path


def blocks(heading):
    """[(language, text)]: the fenced blocks below a heading of the page."""
    section = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL).group(1)
    return re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Proxy:
    """A process in a group of its own that listens on a port: started, waited for, ended by its pid.

    A test that is killed leaves none of the group behind: nginx's workers outlive their master, and who changes its user, as HAProxy does, loses
    its death signal. So a keeper waits for the test's end of a pipe to close.
    """

    def __init__(self, words, port, log):
        self.log = log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(list(map(str, words)), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        self._keeper = subprocess.Popen(["sh", "-c", 'read -r _; kill -s KILL -- "-$1"', "keeper", str(self.process.pid)], stdin=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, start_new_session=True)
        ended = os.pidfd_open(self.process.pid)
        try:
            while not accepts(port):
                if select.select([ended], [], [], 0.01)[0]:
                    self.end()
                    raise AssertionError(f"{words[0]} ended:\n{self.text()}")
        finally:
            os.close(ended)

    def text(self):
        return self.log.read_text(errors="replace")

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        self._keeper.kill()
        self._keeper.wait()
        self._keeper.stdin.close()
        self.process.wait()


WORKERS = 2  # of nginx
NGINX = """
load_module {modules}/ndk_http_module.so;
load_module {modules}/ngx_http_lua_module.so;
{user}
daemon off;
worker_processes {workers};
pid {folder}/{name}.pid;
error_log {folder}/{name}.log notice;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/{name}.body;
  proxy_temp_path {folder}/{name}.proxy;
  fastcgi_temp_path {folder}/{name}.fastcgi;
  uwsgi_temp_path {folder}/{name}.uwsgi;
  scgi_temp_path {folder}/{name}.scgi;
  server {{ listen 127.0.0.1:{app}; location / {{ return 200 "hello\\n"; }} }}
{http}
}}
"""
MODULES = "/usr/lib/nginx/modules"


class Doors(Case):
    def daemon(self, *rules, name=None, arguments=()):
        return self.start("-c", self.small(rules=rules or [API, LOGIN]), *arguments, name=name).ready()

    def install(self, heading):
        """Runs the commands of the page that begin with mkdir or cp, below the test's folder instead of the root."""
        for language, text in blocks(heading):
            for line in text.splitlines() if language == "sh" else []:
                if line.split()[0] in ("mkdir", "cp"):
                    below = re.sub(r" /(?=\w)", f" {self.folder}/", line)
                    pathlib.Path(below.split()[-1]).parent.mkdir(parents=True, exist_ok=True)
                    subprocess.run(["sh", "-ec", below], cwd=ROOT, check=True, timeout=WAIT_S)

    def edit(self, path, changes):
        """What an operator adapts in a file that was installed; every text must be there."""
        file = self.folder / path
        text = file.read_text()
        for old, new in changes.items():
            self.assertIn(old, text, path)
            text = text.replace(old, str(new))
        file.write_text(text)

    def proxy(self, words, port, name):
        started = Proxy(words, port, self.folder / f"{name}.out")
        self.addCleanup(started.end)
        return started

    def nginx(self, http_text, port, app, name="nginx"):
        words = [program("nginx", "nginx"), "-e", self.folder / f"{name}.log", "-c", self.folder / f"{name}.conf"]
        module(f"{MODULES}/ngx_http_lua_module.so", "libnginx-mod-http-lua")
        user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
        (self.folder / f"{name}.conf").write_text(NGINX.format(workers=WORKERS, folder=self.folder, name=name, modules=MODULES, user=user, app=app, http=http_text))
        return self.proxy(words, port, name)


class Visitor:
    """One kept connection of a client."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)

    def get(self, path="/", **headers):
        """(status, headers); header names by underscores."""
        self.connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        reply = self.connection.getresponse()
        reply.read()
        return reply.status, reply.headers

    def close(self):
        self.connection.close()


def get(port, path="/", **headers):
    with contextlib.closing(Visitor(port)) as visitor:
        return visitor.get(path, **headers)


def statuses(ports, requests, **how):
    """Of so many requests by each of several connections at once; a connection for each of the ports."""
    def visit(port):
        with contextlib.closing(Visitor(port)) as visitor:
            return [visitor.get(**how)[0] for _ in range(requests)]
    with concurrent.futures.ThreadPoolExecutor(len(ports)) as pool:
        return [status for part in pool.map(visit, ports) for status in part]


class Traffic:
    """Connections that keep asking until the block ends; `seen` holds the status of every answer."""

    def __init__(self, port, connections=4):
        self.port, self.seen, self.problems, self._over = port, set(), [], threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(connections)]

    def _run(self):
        try:
            with contextlib.closing(Visitor(self.port)) as visitor:
                while not self._over.is_set():
                    self.seen.add(visitor.get()[0])
        except Exception as problem:  # any is the test's failure, in its thread
            self.problems.append(problem)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()


class Contract:
    """What every proxy must keep, as a part of its test's class. That has `door(daemon, closed=False, deadline_ms=LONG_MS)`, which starts the proxy
    before an application, with the rule api for each client, and returns its port; `key`, this client's; `limit_headers`, the names of those of
    limit, remaining and reset."""

    def until(self, port, status):
        end = time.monotonic() + WAIT_S
        while get(port)[0] != status:
            self.assertLess(time.monotonic(), end, f"no {status}")

    def test_exactly_the_limit_is_admitted_of_more_from_several_connections(self):
        port = self.door(self.daemon())
        seen = statuses([port] * 8, 25)
        self.assertEqual((seen.count(200), seen.count(429)), (LIMIT, 200 - LIMIT))

    def test_responses_say_what_is_left_and_when_to_come_back(self):
        daemon = self.daemon()
        port = self.door(daemon)
        status, headers = get(port)
        self.assertEqual((status, *(headers[name] for name in self.limit_headers)), (200, "100", "99", str(HOUR_S)))
        self.assertNotIn("Retry-After", headers)
        Plain(daemon).ask("TALLY.TAKE", "api", self.key, 99)
        status, headers = get(port)
        self.assertEqual((status, headers[self.limit_headers[0]], headers[self.limit_headers[1]]), (429, "100", "0"))
        self.assertIn(int(headers["Retry-After"]), range(HOUR_S - WAIT_S, HOUR_S + 1))
        self.assertIn(int(headers[self.limit_headers[2]]), range(100 * HOUR_S - WAIT_S, 100 * HOUR_S + 1))

    def test_a_rule_that_takes_another_along_limits_by_the_tighter(self):
        port = self.door(self.daemon(dict(API, also=["tight"]), dict(API, name="tight", burst=2)))
        for status, left in ((200, "1"), (200, "0"), (429, "0")):
            seen, headers = get(port)
            self.assertEqual((seen, headers[self.limit_headers[0]], headers[self.limit_headers[1]]), (status, "2", left))

    def test_an_open_door_lets_in_while_tallyd_is_away_and_limits_again_when_it_is_back(self):
        self._away_and_back(closed=False, status=200)

    def test_a_closed_door_answers_503_while_tallyd_is_away_and_lets_in_again_when_it_is_back(self):
        self._away_and_back(closed=True, status=503)

    def _away_and_back(self, closed, status):
        daemon = self.daemon()
        port = self.door(daemon, closed)
        with Traffic(port) as traffic:
            self.until(port, 429)
            daemon.end(signal.SIGKILL)
            self.assertEqual([get(port)[0] for _ in range(20)], [status] * 20)
            self.assertEqual(statuses([port] * 4, 10), [status] * 40)
            self.daemon()  # it has forgotten everything
            self.until(port, 429)
        self.assertEqual(traffic.problems, [])
        self.assertEqual(traffic.seen, {200, 429, status})
        self.assertEqual(set(statuses([port] * 8, 25)), {429})

    def test_a_door_opens_while_tallyd_is_away(self):
        daemon = self.daemon()
        daemon.end()
        port = self.door(daemon)
        self.assertEqual(set(statuses([port], 3)), {200})
        self.daemon()
        self.until(port, 429)

    def test_a_daemon_that_hangs_counts_as_away(self):
        daemon = self.daemon()
        port = self.door(daemon, closed=True, deadline_ms=50)
        self.until(port, 200)
        daemon.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, daemon.process.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            self.assertEqual(statuses([port] * 3, 3), [503] * 9)
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        self.until(port, 200)  # and no late answer is taken for another's
        self.until(port, 429)
        self.assertNotIn(200, statuses([port] * 4, 10))


class Kept(Contract):
    """And of those that keep connections to tallyd until one is needed; `keepers` is how many may keep one each, when one client asks."""

    def test_connections_to_tallyd_are_kept(self):
        daemon = self.daemon()
        port = self.door(daemon)
        statuses([port], 50)
        self.assertIn(Plain(daemon).stats()["connections"] - 1, range(1, self.keepers + 1))

    def test_the_first_request_after_a_restart_of_tallyd_is_answered_over_a_new_connection(self):
        daemon = self.daemon()
        port = self.door(daemon, closed=True)
        self.assertEqual(set(statuses([port] * 4, 5)), {200})
        for number in (signal.SIGTERM, signal.SIGKILL):
            daemon.end(number)
            daemon = self.daemon()
            self.assertEqual(set(statuses([port] * 8, 5)), {200})


class Logins(Kept):
    """And of those that ask for two rules where the path is /login: api, and login by the header X-User."""

    def test_of_two_rules_the_one_that_refuses_is_told_where_they_take_others_along(self):
        daemon = self.daemon(dict(API, also=["daily"]), dict(API, name="daily", burst=50), dict(LOGIN, also=["weekly"]), dict(LOGIN, name="weekly"))
        port = self.door(daemon)
        for _ in range(5):
            self.assertEqual(get(port, "/login", X_User="bob")[0], 200)
        status, headers = get(port, "/login", X_User="bob")
        self.assertEqual((status, headers["X-RateLimit-Limit"]), (429, "5"))
        self.assertRegex(headers["RateLimit"], r'^"api";r=45;t=\d+, "login";r=0;t=\d+$')
        Plain(daemon).ask("TALLY.TAKE", "daily", self.key, 45)
        status, headers = get(port, "/login", X_User="eve")
        self.assertEqual((status, headers["X-RateLimit-Limit"]), (429, "50"))
