#!/usr/bin/env python3
"""tallyd and tally as processes: daemon_process_test.py TALLYD TALLY [TEST...]

Starts, refusals, exit codes, sockets, connections, draining, pages and the operator's tool.
"""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from processes import DAY, PROGRAMS, WAIT_S, Case, Daemon, Plain, Replies, encode, free_ports, run  # noqa: E402


class Starts(Case):
    def test_a_bare_daemon_serves_and_prints_the_exact_command_to_try(self):
        # Not as root, whose default place is outside of the test's folder.
        self.folder.chmod(0o777)
        program = shutil.copy(PROGRAMS["tallyd"], self.folder / "tallyd")
        user = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
        environment = dict(os.environ, XDG_RUNTIME_DIR=str(self.folder))
        socket_path = f"{self.folder}/tallyd.sock"
        with subprocess.Popen([program], stderr=subprocess.PIPE, text=True, env=environment, **user) as bare:
            try:
                lines = []
                while " ready " not in (lines[-1:] or [" "])[0]:
                    lines.append(bare.stderr.readline())
                    self.assertTrue(lines[-1], lines)
                [line] = re.findall(r"try: (redis-cli .*)", "".join(lines))
                self.assertEqual(line, f"redis-cli -s {socket_path} CL.THROTTLE user:1 15 30 60 1")
                self.assertEqual(run(*line.split()).stdout.split(), ["0", "16", "15", "-1", "2"])
                tally = run(PROGRAMS["tally"], "-s", socket_path, "throttle", "user:1", 15, 30, 60)
                self.assertEqual((tally.returncode, tally.stdout), (0, "allowed: 14 of 16 left, all back in 4 s\n"))
                bare.terminate()
                self.assertEqual(bare.wait(WAIT_S), 0)
            finally:
                bare.kill()

    def test_help_and_version_say_so_and_end_with_0(self):
        self.assertIn("--listen-resp", run(PROGRAMS["tallyd"], "--help").stdout)
        self.assertRegex(run(PROGRAMS["tallyd"], "--version").stdout, r"^tallyd \d+\.\d+\.\d+\n$")

    def test_usage_errors_end_with_64(self):
        for words, part in [(["--nonsense"], "nonsense"), (["--log-level", "loud"], "--log-level loud"),
                            (["--listen-resp", "nowhere"], "--listen-resp nowhere"), (["--name", "a/b"], "--name a/b"),
                            (["stray"], "stray")]:
            with self.subTest(words):
                done = run(PROGRAMS["tallyd"], *words, folder=self.folder)
                self.assertEqual(done.returncode, 64, done)
                self.assertIn(part, done.stderr)
                self.assertIn("Try 'tallyd --help'", done.stderr)

    def test_check_says_every_error_with_its_place_and_ends_with_78(self):
        path = self.write('{ "rules": [\n  { "name": "api", "limit": 10, "window": "1m", "brust": 3 },\n'
                          '  { "name": "b", "limit": 0, "window": "1m" } ],\n  "wrokers": 1 }')
        for words in (["--check"], []):
            done = run(PROGRAMS["tallyd"], "-c", path, *words, folder=self.folder)
            self.assertEqual(done.returncode, 78, done)
            self.assertIn(f"{path}:2:", done.stderr)
            self.assertIn('rules[0].brust: unknown field; did you mean "burst"?', done.stderr)
            self.assertIn("rules[1].limit", done.stderr)
            self.assertIn('did you mean "workers"?', done.stderr)
        missing = run(PROGRAMS["tallyd"], "--check", "-c", self.folder / "none.json")
        self.assertEqual(missing.returncode, 78)
        self.assertIn("none.json: cannot be read: No such file or directory", missing.stderr)

    def test_check_of_a_good_file_ends_with_0_and_print_config_reads_back(self):
        path = self.small(rules=[{"name": "api", "limit": 100, "window": "1m"}])
        done = run(PROGRAMS["tallyd"], "--check", "-c", path)
        self.assertEqual((done.returncode, "api" in done.stdout), (0, True), done)
        printed = run(PROGRAMS["tallyd"], "--print-config", "-c", path)
        self.assertEqual(printed.returncode, 0)
        again = run(PROGRAMS["tallyd"], "--print-config", "-c", self.write(printed.stdout, "printed.json"))
        self.assertEqual(again.stdout, printed.stdout)

    def test_peers_beyond_loopback_are_refused_without_a_secret(self):
        done = run(PROGRAMS["tallyd"], "--bind", "192.0.2.1:8381", "--peers", "192.0.2.1:8381,192.0.2.2:8381", "--name", "x",
                   folder=self.folder)
        self.assertEqual(done.returncode, 78, done)
        self.assertIn("cluster.bind: \"192.0.2.1:8381\" is not a loopback address, so the nodes need a secret", done.stderr)

    def test_a_second_daemon_on_the_socket_is_refused_and_the_first_goes_on(self):
        first = self.start("-c", self.small()).ready()
        second = self.start("-c", self.small(), "--listen-resp", "unix:" + first.socket, name="second")
        self.assertEqual(second.ended(), 1)
        self.assertIn(f"another daemon is serving {first.socket}", second.text())
        self.assertEqual(Plain(first).ask("PING"), "PONG")
        self.assertEqual(first.end(), 0)

    def test_a_stale_socket_is_replaced(self):
        first = self.start("-c", self.small()).ready()
        first.end(signal.SIGKILL)
        self.assertTrue(os.path.exists(first.socket))
        second = self.start("-c", self.small()).ready()
        self.assertEqual(Plain(second).ask("PING"), "PONG")
        self.assertEqual(second.end(), 0)
        self.assertFalse(os.path.exists(second.socket))

    def test_of_many_that_start_at_once_on_one_socket_one_serves(self):
        config = self.small()
        many = [self.start("-c", config, "--listen-resp", f"unix:{self.folder}/shared.sock", name=f"n{i}") for i in range(6)]
        codes = []
        while len(codes) < 5:
            pid, status = os.waitpid(-1, 0)
            daemon = next(d for d in many if d.process.pid == pid)
            daemon.process.returncode = os.waitstatus_to_exitcode(status)
            codes.append(daemon.process.returncode)
        self.assertEqual(codes, [1] * 5)
        [winner] = [d for d in many if d.process.poll() is None]
        winner.ready().socket = f"{self.folder}/shared.sock"
        self.assertEqual(Plain(winner).ask("PING"), "PONG")
        self.assertEqual(winner.end(), 0)

    def test_the_socket_has_the_mode_that_was_asked_for(self):
        daemon = self.start("-c", self.small(), "--listen-resp", f"unix:{self.folder}/m.sock?mode=0600").ready()
        self.assertEqual(os.stat(self.folder / "m.sock").st_mode & 0o777, 0o600)
        self.assertEqual(daemon.end(), 0)

    def test_tcp_serves_too(self):
        daemon = self.start("-c", self.small(), "--listen-resp", "127.0.0.1:0").ready()
        host, port = re.search(r"serving RESP address=(\S+):(\d+)", daemon.text()).groups()
        with socket.create_connection((host, int(port)), WAIT_S) as connection:
            connection.sendall(encode("CL.THROTTLE", "k", 15, 30, 60))
            self.assertEqual(Replies(connection).next(), [0, 16, 15, -1, 2])
            connection.shutdown(socket.SHUT_WR)
            self.assertEqual(connection.recv(1), b"")
        self.assertEqual(daemon.end(), 0)

    def test_a_json_log_is_json_line_by_line(self):
        daemon = self.start("-c", self.small(), "--log-format", "json", "--log-level", "debug").ready()
        self.assertEqual(daemon.end(), 0)
        lines = [json.loads(line) for line in daemon.text().splitlines()]
        self.assertIn("ready", [line["message"] for line in lines])
        self.assertEqual({"time", "level", "message"} - set(lines[0]), set())


class Ends(Case):
    def test_sigterm_answers_what_is_there_and_ends_with_0(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            daemon = self.start("-c", self.small(), name=f"s{int(number)}").ready()
            client = Plain(daemon)
            self.assertEqual(client.ask("PING"), "PONG")
            daemon.process.send_signal(signal.SIGSTOP)
            client.send(*[("CL.THROTTLE", "k", 99, 1, 3600)] * 50)  # lies there when the signal comes
            daemon.process.send_signal(number)
            daemon.process.send_signal(signal.SIGCONT)
            self.assertEqual([client.next()[2] for _ in range(50)], list(range(99, 49, -1)))
            self.assertRaises(EOFError, client.next)
            self.assertEqual(daemon.ended(), 0)
            self.assertFalse(os.path.exists(daemon.socket))
            self.assertIn("requests=51", daemon.text())

    def test_a_client_that_does_not_read_cannot_hold_up_the_end(self):
        daemon = self.start("-c", self.small()).ready()
        client = Plain(daemon).connection
        client.setblocking(False)
        big = encode("ECHO", b"x" * 60000)
        try:
            while True:
                client.send(big)
        except BlockingIOError:
            pass
        self.assertEqual(daemon.end(), 0)

    def test_sighup_does_not_end_it(self):
        daemon = self.start("-c", self.small()).ready()
        client = Plain(daemon)
        daemon.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + WAIT_S
        while "SIGHUP" not in daemon.text():  # a SIGTERM sent meanwhile may be delivered first
            self.assertLess(time.monotonic(), deadline, "the log does not say SIGHUP")
            self.assertEqual(client.ask("PING"), "PONG")
        self.assertEqual(client.ask("PING"), "PONG")
        self.assertEqual(daemon.end(), 0)


class Connections(Case):
    def test_above_the_limit_connections_are_told_and_closed_and_room_is_used_again(self):
        daemon = self.start("-c", self.small(limits={"connections": 2})).ready()
        first, second = Plain(daemon), Plain(daemon)
        self.assertEqual([first.ask("PING"), second.ask("PING")], ["PONG", "PONG"])
        with daemon.connect() as third:
            self.assertEqual(third.recv(100), b"-ERR max number of clients reached\r\n")
            self.assertEqual(third.recv(1), b"")
        second.connection.close()
        first.until(lambda stats: stats["connections"] == 1)
        self.assertEqual(Plain(daemon).ask("PING"), "PONG")
        self.assertEqual(first.stats()["connections_full"], 1)
        self.assertEqual(daemon.end(), 0)

    def test_a_client_that_ends_its_side_gets_its_answers(self):
        daemon = self.start("-c", self.small()).ready()
        with daemon.connect() as connection:
            connection.sendall(encode("PING") * 1000)
            connection.shutdown(socket.SHUT_WR)
            back = b""
            while more := connection.recv(65536):
                back += more
            self.assertEqual(back, b"+PONG\r\n" * 1000)
        self.assertEqual(daemon.end(), 0)

    def test_what_is_too_much_for_one_read_or_one_output_is_answered_to_its_end(self):
        daemon = self.start("-c", self.small(limits={"pipeline_bytes": 4096})).ready()
        text = "x" * 512
        for last in (encode("PING"), encode("QUIT"), encode("ECHO", text)[:-1]):  # as any other, the end, cut off
            with daemon.connect() as connection:
                sender = threading.Thread(target=lambda: (connection.sendall(encode("ECHO", text) * 2000 + last), connection.shutdown(socket.SHUT_WR)))
                sender.start()
                back = b""
                while more := connection.recv(65536):
                    back += more
                sender.join()
                echoes = f"$512\r\n{text}\r\n".encode() * 2000
                self.assertEqual(back[:len(echoes)], echoes)
                self.assertIn(back[len(echoes):], (b"+PONG\r\n", b"+OK\r\n", b""))
        Plain(daemon).until(lambda stats: stats["connections"] == 1)
        self.assertEqual(daemon.end(), 0)

    def test_what_a_client_sent_before_it_went_is_charged(self):
        daemon = self.start("-c", self.small()).ready()
        with daemon.connect() as connection:
            connection.sendall(encode("CL.THROTTLE", "k", 99, 1, 3600) * 60)
        other = Plain(daemon)
        # "connections" alone can be 1 before the first one was even accepted.
        left = lambda: other.ask("CL.THROTTLE", "k", 99, 1, 3600, 0)[2]
        other.until(lambda stats: stats["connections"] == 1 and left() <= 40)
        self.assertEqual(left(), 40)
        self.assertEqual(daemon.end(), 0)


    def test_what_many_connections_ask_at_once_is_answered_to_each_whatever_the_one_before_does(self):
        daemon = self.start("-c", self.small(workers=1, rules=[{"name": "api", "limit": 60, "window": "1h"}])).ready()
        clients = [Plain(daemon) for _ in range(60)]
        for i, client in enumerate(clients):  # a second one of the same form is compared, not parsed
            self.assertEqual(client.ask("TALLY.TAKE", "api", f"warm-{i}")[2], 59)
        whole = encode("TALLY.TAKE", "api", "bob")
        daemon.process.send_signal(signal.SIGSTOP)  # so that all of them are ready in one turn
        for i, client in enumerate(clients):
            client.connection.sendall([whole, whole[:-5], whole * 20, b"*1\r\n$-7\r\n", b"PING\r\n", whole][i % 6])
            if i % 6 == 5:
                client.connection.shutdown(socket.SHUT_WR)
        clients[0].connection.close()
        daemon.process.send_signal(signal.SIGCONT)
        answers = []
        for i, client in enumerate(clients):
            if i % 6 == 1:
                client.connection.sendall(whole[-5:])
            if i % 6 == 3:
                self.assertIn("Protocol error", client.next().args[0])
            elif i % 6 == 4:
                self.assertEqual(client.next(), "PONG")
            elif i != 0:
                answers += [client.next() for _ in range(20 if i % 6 == 2 else 1)]
        self.assertEqual(len(answers), 9 + 10 + 200 + 10)
        left = [answer[2] for answer in answers if answer[0] == 0]
        self.assertEqual((len(left), len(set(left))), (59, 59))  # and the one of the connection that was closed
        self.assertEqual(daemon.end(), 0)


class Pages(Case):
    def ask(self, daemon, path, method="GET"):
        request = urllib.request.Request(f"http://{daemon.http()}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def test_the_probes_and_the_page_answer(self):
        daemon = self.start("-c", self.small(), "--listen-http", "127.0.0.1:0").ready()
        self.assertEqual(self.ask(daemon, "/healthz"), (200, "ok\n"))
        self.assertEqual(self.ask(daemon, "/readyz"), (200, "ready\n"))
        self.assertIn("<title>tallyd</title>", self.ask(daemon, "/")[1])
        self.assertEqual(self.ask(daemon, "/none")[0], 404)
        self.assertEqual(self.ask(daemon, "/metrics", "POST")[0], 405)
        self.assertEqual(daemon.end(), 0)

    def test_a_node_that_is_not_ready_says_so(self):
        ports = free_ports(2)
        daemon = self.start("-c", self.small(), "--bind", f"127.0.0.1:{ports[0]}", "--peers",
                            ",".join(f"127.0.0.1:{port}" for port in ports), "--listen-http", "127.0.0.1:0", name="n")
        daemon.wait_for("STATUS=asking the other nodes")
        while "serving HTTP" not in daemon.text():  # it comes; the file has no event to wait for
            self.assertIsNone(daemon.process.poll(), daemon.text())
        status, _ = self.ask(daemon, "/readyz")
        self.assertIn(status, (200, 503))  # 503 until it has asked for half a second
        daemon.ready()
        self.assertEqual(self.ask(daemon, "/readyz")[0], 200)
        self.assertEqual(daemon.end(), 0)

    def test_bad_http_is_refused_and_the_listener_goes_on(self):
        daemon = self.start("-c", self.small(), "--listen-http", "127.0.0.1:0").ready()
        host, port = daemon.http().rsplit(":", 1)
        for data, status in [(b"nonsense\r\n\r\n", b"400"), (b"GET / HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n", b"431"),
                             (b"\x00\xff\r\n\r\n", b"400"), (b"GET /healthz HTTP/1.0\r\n\r\n", b"200")]:
            with socket.create_connection((host, int(port)), WAIT_S) as connection:
                connection.sendall(data)
                self.assertEqual(connection.recv(4096)[9:12], status)
        self.assertEqual(self.ask(daemon, "/healthz")[0], 200)
        self.assertEqual(daemon.end(), 0)


class Tool(Case):
    def test_exit_codes_tell_allowed_limited_usage_and_unreachable(self):
        daemon = self.start("-c", self.small(rules=[{"name": "api", "limit": 2, "window": DAY, "algorithm": "fixed_window"}])).ready()

        def tally(*words):
            return run(PROGRAMS["tally"], "-s", daemon.socket, *words)

        self.assertEqual(tally("ping").stdout, "PONG\n")
        taken = [tally("take", "api", "k") for _ in range(3)]
        self.assertEqual([one.returncode for one in taken], [0, 0, 1])
        self.assertRegex(taken[0].stdout, r"^allowed: 1 of 2 left")
        self.assertRegex(taken[2].stdout, r"^limited: 0 of 2 left, .* try again in")
        self.assertEqual(tally("peek", "api", "k").returncode, 1)
        self.assertEqual(tally("give", "api", "k").returncode, 0)
        self.assertEqual(tally("take", "api", "k").returncode, 0)
        self.assertEqual(tally("reset", "api", "k").returncode, 0)
        reply = json.loads(tally("--json", "take", "api", "k", "2").stdout)
        self.assertEqual((reply["allowed"], reply["limit"], reply["remaining"], reply["reason"]), (True, 2, 0, "admitted"))
        self.assertEqual(json.loads(tally("--json", "throttle", "k", "15", "30", "60").stdout)["reset_after_ms"], 2000)
        self.assertEqual(json.loads(tally("--json", "rules").stdout)["api"]["limit"], 2)
        self.assertEqual(json.loads(tally("--json", "explain", "api", "k").stdout)["role"], "alone")
        self.assertIn("alone", tally("peers").stdout)
        self.assertEqual(len(tally("stat", "-n", "1").stdout.splitlines()), 2)
        for words in [("take", "lgoin", "k"), ("take", "api"), ("nonsense",), (), ("--nonsense",), ("take", "api", "k", "x")]:
            self.assertEqual(tally(*words).returncode, 2, words)
        self.assertEqual(daemon.end(), 0)
        gone = tally("ping")
        self.assertEqual(gone.returncode, 3)
        self.assertIn(f"cannot reach tallyd at {daemon.socket}: No such file or directory (errno 2)", gone.stderr)
        self.assertIn("Start it with: tallyd", gone.stderr)

    def test_keys_are_taken_as_they_are(self):
        daemon = self.start("-c", self.small(rules=[{"name": "api", "limit": 9, "window": DAY, "algorithm": "fixed_window"}])).ready()

        def tally(*words):
            return run(PROGRAMS["tally"], "-s", daemon.socket, "--json", *words)

        client = Plain(daemon)
        for key in ("a,b", ",", "a,", "10.0.0.1, 10.0.0.2", "two words", " ", "x=1;y='2'", "--json", "caf\u00e9"):
            with self.subTest(key):
                self.assertEqual(json.loads(tally("--", "take", "api", key, "3").stdout)["remaining"], 6)
                self.assertEqual(client.ask("TALLY.PEEK", "api", key)[2], 6)
                self.assertEqual(json.loads(tally("--", "peek", "api", key).stdout)["remaining"], 6)
                self.assertEqual(tally("--", "explain", "api", key).returncode, 0)
                self.assertEqual(json.loads(tally("--", "give", "api", key, "1").stdout)["remaining"], 7)
                self.assertEqual(tally("--", "reset", "api", key).returncode, 0)
                self.assertEqual(client.ask("TALLY.PEEK", "api", key)[2], 9)
                self.assertEqual(tally("--", "block", "api", key, "1h").returncode, 0)
                [order] = client.ask("TALLY.BLOCKS")
                self.assertEqual(order[order.index(b"key") + 1], key.encode())
                self.assertEqual(tally("--", "lift", "api", key).returncode, 0)
                self.assertEqual(client.ask("TALLY.BLOCKS"), [])
                self.assertEqual(json.loads(tally("--", "throttle", key, "4", "1", "60").stdout)["limit"], 5)
        self.assertEqual(json.loads(tally("take", "api", "c,d").stdout)["remaining"], 8)  # as people write it
        self.assertEqual(client.ask("TALLY.PEEK", "api", "c")[2], 9)
        empty = tally("take", "api", "")
        self.assertEqual((empty.returncode, empty.stdout), (2, '{"error":"ERR a key must have 1 to 1024 bytes, got 0"}\n'))
        self.assertEqual(daemon.end(), 0)

    def test_help_shows_the_arguments_too(self):
        for words, shown in (((), "tally [-s PATH] [--json] COMMAND [ARGUMENT...]"), (("secret",), "tally secret [--rotate [--step add|use|drop]] [--json] FILE"),
                             (("convert",), "tally convert envoy FILE"), (("rules", "test"), "tally rules test [-c FILE] [--json] 'domain=DOMAIN KEY=VALUE...'")):
            self.assertIn(f"\n  {shown}\n", run(PROGRAMS["tally"], *words, "--help").stdout)

    def test_the_socket_comes_from_the_environment_or_is_the_daemons_default(self):
        daemon = self.start("-c", self.small()).ready()
        done = subprocess.run([PROGRAMS["tally"], "ping"], stdout=subprocess.PIPE, env=dict(os.environ, TALLY_SOCKET=daemon.socket),
                              timeout=WAIT_S)
        self.assertEqual((done.returncode, done.stdout), (0, b"PONG\n"))
        self.assertEqual(daemon.end(), 0)

    def test_check_ends_as_the_daemons_check_does(self):
        good = self.small(rules=[{"name": "api", "limit": 2, "window": "1m"}])
        self.assertEqual(run(PROGRAMS["tally"], "check", good).returncode, 0)
        bad = run(PROGRAMS["tally"], "check", self.write('{"wrokers": 1}', "bad.json"))
        self.assertEqual(bad.returncode, 78)
        self.assertIn('bad.json:1:2: wrokers: unknown field; did you mean "workers"?', bad.stderr)
        self.assertEqual(run(PROGRAMS["tally"], "check", self.folder / "none").returncode, 2)


if __name__ == "__main__":
    processes.main(sys.argv)
