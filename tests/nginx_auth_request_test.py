#!/usr/bin/env python3
"""conf/nginx/auth_request.conf with the real nginx before a real tallyd: nginx_auth_request_test.py TALLYD TALLY [TEST...]"""
import http.client
import http.server
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import processes  # noqa: E402
from processes import DAY, WAIT_S, Case, Plain, free_ports  # noqa: E402

CONF = pathlib.Path(__file__).resolve().parent.parent / "conf" / "nginx" / "auth_request.conf"
OPEN_LINE = "error_page 404 502 503 504 = @open;"
BY_USER = CONF.read_text().replace("$remote_addr", "$http_x_user")  # what is counted
OUTER = """%sdaemon off; master_process off; pid %s/nginx.pid; error_log %s/nginx.log;
events {}
http { access_log off; client_body_temp_path %s/body; proxy_temp_path %s/proxy; fastcgi_temp_path %s/fastcgi; uwsgi_temp_path %s/uwsgi;
       scgi_temp_path %s/scgi; include %s/auth_request.conf; }
"""


class Application(http.server.BaseHTTPRequestHandler):
    """What stands behind nginx: answers /N with the status N, and everything else with 200."""

    def do_GET(self):
        self.send_response(int(self.path[1:]) if self.path[1:].isdigit() else 200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"hello\n")

    def log_message(self, *_):
        pass


class Nginx(Case):
    def setUp(self):
        super().setUp()
        self.assertIsNotNone(shutil.which("nginx"), "nginx is not installed: tools/test.sh does that")
        self.unix = str(self.folder / "http.sock")
        self.config = self.small(rules=[{"name": "api", "limit": 5, "window": DAY, "algorithm": "fixed_window"}], listen={"http": ["unix:" + self.unix]})
        self.application = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application)
        serving = threading.Thread(target=self.application.serve_forever)
        serving.start()
        self.addCleanup(lambda: (self.application.shutdown(), serving.join(), self.application.server_close()))

    def nginx(self, text):
        [self.port] = free_ports(1)
        for what, ours in (("/run/tallyd/http.sock", self.unix), ("127.0.0.1:8080", f"127.0.0.1:{self.port}"),
                           ("127.0.0.1:8000", f"127.0.0.1:{self.application.server_port}")):
            self.assertEqual(text.count(what) > 0, True, what)
            text = text.replace(what, ours)
        (self.folder / "auth_request.conf").write_text(text)
        folder = str(self.folder)
        outer = self.write(OUTER % (("user root; " if os.geteuid() == 0 else "",) + (folder,) * 8), "nginx.conf")
        said = self.folder / "nginx.said"
        with open(said, "wb") as out:
            process = subprocess.Popen(["nginx", "-c", str(outer), "-p", folder, "-e", f"{folder}/nginx.log"], stdin=subprocess.DEVNULL, stdout=out,
                                       stderr=out)

        def end():
            process.terminate()
            process.wait(WAIT_S)
        self.addCleanup(end)
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if process.poll() is not None:
                self.fail("nginx ended: " + said.read_text())

    def get(self, path="/", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            reply = connection.getresponse()
            reply.text = reply.read().decode()
            return reply
        finally:
            connection.close()

    def test_who_is_over_the_limit_gets_a_429_with_what_to_do(self):
        daemon = self.start("-c", self.config).ready()
        self.nginx(CONF.read_text())
        for left in (4, 3, 2, 1, 0):
            reply = self.get()
            self.assertEqual((reply.status, reply.text), (200, "hello\n"))
            self.assertRegex(reply.headers["RateLimit"], rf'^"api";r={left};t=\d+$')
            self.assertEqual(reply.headers["RateLimit-Policy"], '"api";q=5;w=31622400')
        for _ in range(3):
            reply = self.get(X_Tally_Key="somebody else", X_Tally_Rule="none")  # a stranger's words count for nothing
            self.assertEqual(reply.status, 429)
            self.assertGreater(int(reply.headers["Retry-After"]), 0)
            self.assertRegex(reply.headers["RateLimit"], r'^"api";r=0;t=\d+$')
            self.assertEqual(reply.headers["RateLimit-Policy"], '"api";q=5;w=31622400')
        self.assertEqual(Plain(daemon).ask("TALLY.PEEK", "api", "127.0.0.1")[2], 0)
        self.assertEqual(daemon.end(), 0)

    def test_connections_are_kept_and_no_header_of_a_client_is_too_long_for_tallyd(self):
        daemon = self.start("-c", self.config).ready()
        self.nginx(CONF.read_text())
        for _ in range(3):
            self.assertEqual(self.get(A="x" * 7000, B="y" * 7000).status, 200)
        client = Plain(daemon)
        self.assertEqual(client.stats()["connections"], 2)  # nginx's one, and this
        self.assertEqual(client.stats()["requests"], 5)
        self.assertEqual(daemon.end(), 0)

    def test_what_the_application_says_itself_stays_as_it_is(self):
        daemon = self.start("-c", self.config).ready()
        self.nginx(CONF.read_text())
        for status in (403, 404, 500, 503):
            reply = self.get(f"/{status}")
            self.assertEqual((reply.status, reply.text), (status, "hello\n"))
        self.assertEqual(daemon.end(), 0)

    def test_what_nginx_refuses_itself_is_no_429(self):
        daemon = self.start("-c", self.config).ready()
        self.nginx(CONF.read_text().replace("auth_request /tally;", "deny all; auth_request /tally;"))
        self.assertEqual(self.get().status, 403)
        self.assertEqual(daemon.end(), 0)

    def test_when_tallyd_is_away_requests_pass_and_when_it_is_back_they_are_counted(self):
        daemon = self.start("-c", self.config).ready()
        self.nginx(CONF.read_text())
        self.assertEqual(self.get().status, 200)
        self.assertEqual(daemon.end(), 0)
        for _ in range(10):
            reply = self.get()
            self.assertEqual((reply.status, reply.text, reply.headers["RateLimit"]), (200, "hello\n", None))
        again = self.start("-c", self.config).ready()
        while self.get().headers["RateLimit"] is None:  # nginx leaves a server that failed alone for a while
            pass
        self.assertEqual(again.end(), 0)

    def test_whatever_key_a_client_sends_it_is_counted(self):
        daemon = self.start("-c", self.config).ready()
        self.nginx(BY_USER)
        long = "x" * 3000
        for keys, counted in ((("", None), "-"), ((long, long + "y", "x" * 1024), "x" * 1024), (("a b,\t\"'%s\\", ) * 2, "a b,\t\"'%s\\")):
            statuses = [self.get(**({} if key is None else {"X_User": key})).status for key in keys * 4]
            self.assertEqual(statuses, [200] * 5 + [429] * (len(statuses) - 5), counted)
            self.assertEqual(Plain(daemon).ask("TALLY.PEEK", "api", counted)[2], 0)
        self.assertEqual(daemon.end(), 0)

    def test_a_key_with_control_characters_is_refused(self):
        daemon = self.start("-c", self.config).ready()
        self.nginx(BY_USER)
        self.assertEqual(self.get(X_User="a\x01").status, 503)
        self.assertEqual(daemon.end(), 0)

    def test_where_there_is_no_such_rule_requests_pass_by_the_same_line(self):
        daemon = self.start("-c", self.config).ready()
        for text, status in ((CONF.read_text(), 200), (re.sub(rf".*{re.escape(OPEN_LINE)}.*\n", "", CONF.read_text()), 503)):
            self.nginx(text.replace("X-Tally-Rule api;", "X-Tally-Rule none;"))
            self.assertEqual(self.get().status, status)
        self.assertEqual(daemon.end(), 0)

    def test_without_one_line_requests_are_refused_while_tallyd_is_away(self):
        text = CONF.read_text()
        self.assertIn(OPEN_LINE, text)
        daemon = self.start("-c", self.config).ready()
        self.nginx(re.sub(rf".*{re.escape(OPEN_LINE)}.*\n", "", text))
        self.assertEqual(self.get().status, 200)
        self.assertEqual(daemon.end(), 0)
        self.assertEqual(self.get().status, 503)


if __name__ == "__main__":
    processes.main(sys.argv)
