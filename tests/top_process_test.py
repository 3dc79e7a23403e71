#!/usr/bin/env python3
"""The busiest keys of a daemon: TALLY.TOP, GET /v1/top and tally top.

Usage: top_process_test.py TALLYD TALLY [unittest arguments].
"""
import json
import os
import pathlib
import pty
import select
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from http_door import Http, HttpCase  # noqa: E402
from processes import PROGRAMS, WAIT_S, Plain, free_ports, main, run  # noqa: E402

BINARY = b"\x00\r\n\xff key"
PICTURE = "admitted/s  limited/s  rule"


class Top(HttpCase):
    def busy(self):
        """A daemon of two workers, and four connections that asked by turns: for 'a' 7 times, 2 of them in vain, and for a binary key 3 times."""
        daemon = self.one()
        clients = [Plain(daemon) for _ in range(4)]
        for i in range(7):
            clients[i % 4].ask("TALLY.TAKE", "login", "a")
        for client in clients[:3]:
            client.ask("TALLY.TAKE", "api", BINARY)
        return daemon, clients[0]

    def tally(self, daemon, *words):
        return run(PROGRAMS["tally"], "-s", daemon.socket, *words, errors="replace")

    def test_rows_of_all_workers_by_either_protocol_version(self):
        daemon, client = self.busy()
        rows = [[b"a", 5, 2, b"login"], [BINARY, 3, 0, b"api"]]
        self.assertEqual(client.ask("TALLY.TOP"), rows)
        self.assertEqual(client.ask("tally.top", 1), rows[:1])
        self.assertEqual(client.ask("TALLY.TOP", "RULE", "api"), rows[1:])
        self.assertEqual(client.ask("TALLY.TOP", 1000, "rule", "login"), rows[:1])
        self.assertEqual(client.ask("TALLY.TOP", "RULE", "big"), [])
        client.ask("CL.THROTTLE", "a", 15, 30, 60)
        self.assertEqual(client.ask("TALLY.TOP", "RULE", "(inline)"), [[b"a", 1, 0, b"(inline)"]])
        with daemon.connect() as third:
            third.sendall(b"HELLO 3\r\nTALLY.TOP 1\r\nPING\r\n")
            back = b""
            while not back.endswith(b"+PONG\r\n"):
                back += third.recv(65536)
        self.assertTrue(back.startswith(b"%"), back)
        self.assertTrue(back.endswith(b"\r\n*1\r\n*4\r\n$1\r\na\r\n:5\r\n:2\r\n$5\r\nlogin\r\n+PONG\r\n"), back)
        self.assertEqual(daemon.end(), 0)

    def test_http_tells_the_span_too(self):
        daemon, client = self.busy()
        for where in (self.unix, self.tcp):
            http = self.open(where)
            status, text = http.ask("/v1/top")
            top = json.loads(text)
            self.assertEqual((status, http.reply.headers["Content-Type"], list(top)), (200, "application/json", ["span_ms", "keys"]))
            self.assertEqual(top["keys"], [{"rule": "login", "key": "a", "admitted": 5, "limited": 2},
                                           {"rule": "api", "key": BINARY.decode(errors="replace"), "admitted": 3, "limited": 0}])
            self.assertTrue(0 < top["span_ms"] <= 20_000, top)
            self.assertEqual([row["key"] for row in json.loads(http.ask("/v1/top?n=1")[1])["keys"]], ["a"])
            self.assertEqual([row["rule"] for row in json.loads(http.ask("/v1/top?rule=api&n=5")[1])["keys"]], ["api"])
        http.take(rule="api", key="by http", cost=3)
        self.assertIn([b"by http", 1, 0, b"api"], client.ask("TALLY.TOP"))
        self.assertTrue(0 < client.stats()["top_span_ms"] <= 20_000)
        self.assertEqual(daemon.end(), 0)

    def test_what_is_wrong_is_said(self):
        daemon, client = self.busy()
        self.assertEqual(str(client.ask("TALLY.TOP", "RULE", "lgoin")), "NORULE no rule 'lgoin'; did you mean 'login'?")
        for words in ((0,), (1001,), ("many",), ("RULE",), (1, "RULE"), (1, "login", "RULE"), ("RULE", "login", 1), ("ROLE", "login"), (1, "RULE", "login", 2)):
            self.assertRegex(str(client.ask("TALLY.TOP", *words)), "^ERR ", words)
        http = self.open(self.tcp)
        for query, status, said in (("n=0", 400, "n must be 1 to 1000, got '0'"), ("n=1001", 400, "n must be"), ("n=x", 400, "n must be"),
                                    ("rule=lgoin", 404, "no rule 'lgoin'; did you mean 'login'?"), ("key=a", 400, "there are n and rule"),
                                    ("n=1&n=2", 400, "two parameters 'n'")):
            got, text = http.ask("/v1/top?" + query)
            self.assertEqual(got, status, text)
            self.assertIn(said, json.loads(text)["detail"])
        self.assertEqual(http.ask("/v1/top", "{}")[0], 405)
        for words, said in ((("top", "lgoin"), "did you mean 'login'"), (("top", "-n", "1001"), "n must be 1000 at most")):
            done = self.tally(daemon, *words)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertIn(said, done.stderr)
        self.assertEqual(daemon.end(), 0)

    def test_the_tool_prints_once_where_there_is_no_terminal(self):
        daemon, _ = self.busy()
        lines = self.tally(daemon, "top").stdout.splitlines()
        self.assertTrue(lines[0].startswith(PICTURE), lines)
        self.assertRegex(lines[1], r"^\d+\.\d +\d+\.\d +login +a$")
        self.assertTrue(lines[2].endswith(" api    \\x00\\x0d\\x0a\ufffd key"), lines)
        self.assertEqual(len(lines), 3)
        self.assertEqual(len(self.tally(daemon, "top", "-n", "1").stdout.splitlines()), 2)
        self.assertEqual(len(self.tally(daemon, "top", "api").stdout.splitlines()), 2)
        for words in (("--json", "top", "login"), ("top", "login", "--json")):
            top = json.loads(self.tally(daemon, *words).stdout)
            self.assertEqual(top["keys"], [{"rule": "login", "key": "a", "admitted": 5, "limited": 2}])
            self.assertTrue(0 < top["span_ms"] <= 20_000, top)
        self.assertEqual(daemon.end(), 0)
        self.assertEqual(self.tally(daemon, "top").returncode, 3)

    def test_the_tool_draws_anew_on_a_terminal_until_it_is_interrupted(self):
        daemon, client = self.busy()
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        tool = subprocess.Popen([PROGRAMS["tally"], "-s", daemon.socket, "top"], stdin=subprocess.DEVNULL, stdout=theirs)
        os.close(theirs)
        self.addCleanup(lambda: tool.poll() is None and tool.kill())
        seen = b""

        def until(what):
            nonlocal seen
            end = time.monotonic() + WAIT_S
            while not what(seen):
                self.assertGreater(end, time.monotonic(), seen)
                if select.select([ours], [], [], WAIT_S)[0]:
                    seen += os.read(ours, 65536)

        until(lambda text: text.count(PICTURE.encode()) >= 2 and b"login" in text)
        client.ask("TALLY.TAKE", "big", "new")
        until(lambda text: b"new" in text)
        tool.send_signal(signal.SIGINT)
        self.assertEqual(tool.wait(WAIT_S), 0)
        until(lambda text: text.endswith(b"\x1b[?7h\x1b[?25h"))  # the terminal is as it was
        self.assertEqual(daemon.end(), 0)

    def test_in_a_fleet_each_node_tells_of_what_it_was_asked(self):
        ports = free_ports(2)
        peers = [f"127.0.0.1:{port}" for port in ports]
        config = self.small(rules=[{"name": "api", "limit": 1000, "window": "1h", "max_overcount": "10%"}])
        nodes = [self.start("-c", config, "--bind", address, "--peers", ",".join(peers), name=name) for name, address in zip("xy", peers)]
        one, other = (Plain(node.ready()) for node in nodes)
        for _ in range(3):
            self.assertEqual(one.ask("TALLY.TAKE", "api", "k")[0], 0)
        self.assertEqual(one.ask("TALLY.TOP"), [[b"k", 3, 0, b"api"]])
        self.assertEqual(other.ask("TALLY.TOP"), [])
        one.ask("TALLY.BLOCK", "api", "k", 60_000)
        end = time.monotonic() + WAIT_S
        while other.ask("TALLY.TAKE", "api", "k")[5] != 5:
            self.assertGreater(end, time.monotonic())
        [[key, _, limited, rule]] = other.ask("TALLY.TOP")
        self.assertEqual((key, limited, rule), (b"k", 1, b"api"))
        for node in nodes:
            self.assertEqual(node.end(), 0)


if __name__ == "__main__":
    main(sys.argv)
