#!/usr/bin/env python3
"""nginx, which asks by Lua, as docs/integrations.md installs it: nginx_test.py TALLYD TALLY [TEST...]"""
import socket
import sys
import threading
import types

sys.dont_write_bytecode = True
from proxies import API, HOUR_S, LIMIT, LOGIN, LONG_MS, ROOT, WORKERS, Doors, Logins, Plain, blocks, free_ports, get, statuses  # noqa: E402
from processes import main  # noqa: E402

SITE, SETTINGS = "etc/nginx/conf.d/site.conf", "etc/nginx/conf.d/tally.conf"


class Nginx(Logins, Doors):
    limit_headers = "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"
    key = "127.0.0.1"
    keepers = WORKERS

    def door(self, daemon, closed=False, deadline_ms=LONG_MS, login_key="key = ngx.var.http_x_user", site=()):
        port, app = free_ports(2)
        self.install("nginx")
        self.edit(SETTINGS, {"/run/tallyd/tallyd.sock": daemon.socket, "/etc/nginx/tally/": f"{self.folder}/etc/nginx/tally/",
                             "deadline_ms = 50": f"deadline_ms = {deadline_ms}", **({'when_away = "open"': 'when_away = "closed"'} if closed else {})})
        self.edit(SITE, {**dict(site), "listen 8080": f"listen 127.0.0.1:{port}", "127.0.0.1:8000": f"127.0.0.1:{app}",
                         "key = ngx.var.http_x_user": login_key})
        self.nginx(f"include {self.folder}/etc/nginx/conf.d/*.conf;", port, app)
        return port

    def test_headers_have_the_form_of_the_draft(self):
        port = self.door(self.daemon())
        headers = get(port)[1]
        self.assertEqual(headers["RateLimit-Policy"], '"api";q=100;w=60')
        self.assertEqual(headers["RateLimit"], f'"api";r=99;t={HOUR_S}')

    def test_two_rules_are_taken_all_or_nothing_and_both_are_told(self):
        daemon = self.daemon()
        port = self.door(daemon)
        for left in (4, 3, 2, 1, 0):
            status, headers = get(port, "/login", X_User="bob")
            self.assertEqual(status, 200)
        self.assertEqual(headers["RateLimit-Policy"], '"api";q=100;w=60, "login";q=5;w=900')
        self.assertRegex(headers["RateLimit"], r'^"api";r=95;t=\d+, "login";r=0;t=\d+$')
        self.assertEqual((headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]), ("5", "0"))
        status, headers = get(port, "/login", X_User="bob")
        self.assertEqual((status, headers["X-RateLimit-Limit"]), (429, "5"))  # of the rule that refused
        self.assertLessEqual(int(headers["Retry-After"]), HOUR_S)
        self.assertEqual(Plain(daemon).ask("TALLY.PEEK", "api", "127.0.0.1")[2], 95)  # a refusal charges nobody
        self.assertEqual(get(port, "/login", X_User="eve")[0], 200)

    def test_a_request_may_cost_more_and_the_rule_that_refuses_is_told_even_where_another_has_less_left(self):
        daemon = self.daemon()
        port = self.door(daemon, login_key="cost = 3, key = ngx.var.http_x_user")
        Plain(daemon).ask("TALLY.TAKE", "api", self.key, 98)
        self.assertEqual(get(port, "/login", X_User="bob")[0], 200)
        status, headers = get(port, "/login", X_User="bob")
        self.assertEqual((status, headers["X-RateLimit-Limit"], headers["X-RateLimit-Remaining"]), (429, "5", "2"))
        self.assertRegex(headers["RateLimit"], r'^"api";r=1;')

    def test_whatever_key_a_client_sends_it_is_counted(self):
        port = self.door(self.daemon())
        long = "x" * 2000
        for headers in ({}, {"X_User": ""}, {"X_User": long}, {"X_User": long + "y"}, {"X_User": "a b\t\"'%s\\"}, {"X_User": "\u00fc"}):
            seen = statuses([port], 7, path="/login", **headers)
            self.assertEqual(set(seen[5:]), {429}, headers)

    def test_whatever_cost_a_client_sends_it_is_counted(self):
        daemon = self.daemon()
        port = self.door(daemon, login_key="cost = ngx.var.arg_cost, key = ngx.var.http_x_user")
        for cost, left in (("1.5", 3), ("-1", 5), ("0.001", 4), ("nan", 4), ("x", 4), ("", 4), ("2", 3)):
            status, headers = get(port, f"/login?cost={cost}", X_User="by" + cost)
            self.assertEqual((status, headers["RateLimit"].split(";")[3]), (200, f"r={left}"), cost)
        for cost in ("1e14", "inf", "1e400", "4294967296"):
            status, headers = get(port, f"/login?cost={cost}", X_User="dear")
            self.assertEqual((status, headers["Retry-After"]), (429, None), cost)

    def test_an_internal_redirect_is_not_counted_again_by_the_same_rule(self):
        (self.folder / "www").mkdir()
        (self.folder / "www/index.html").write_text("hello\n")
        daemon = self.daemon()
        port = self.door(daemon, site={  # with files, and pages for errors
            "    proxy_pass http://127.0.0.1:8000;\n  }\n  location = /login": f"    root {self.folder}/www;\n  }}\n  location = /login",
            "  location / {": "  error_page 404 /login;\n  error_page 429 /index.html;\n  location / {"})
        left = lambda rule, key: Plain(daemon).ask("TALLY.PEEK", rule, key)[2]  # noqa: E731
        self.assertEqual(get(port)[0], 200)
        self.assertEqual(left("api", self.key), LIMIT - 1)
        for _ in range(2):  # to a location with one rule more
            status, headers = get(port, "/missing", X_User="bob")
            self.assertEqual((status, headers["RateLimit-Policy"]), (404, '"api";q=100;w=60, "login";q=5;w=900'))
        self.assertEqual((left("api", self.key), left("login", "bob")), (LIMIT - 3, 3))
        Plain(daemon).ask("TALLY.TAKE", "api", self.key, LIMIT - 3)
        status, headers = get(port)
        self.assertEqual((status, headers["Content-Length"], headers["RateLimit"].split(";")[1]), (429, "6", "r=0"))

    def test_an_answer_to_something_else_is_none(self):
        six = "*6\r\n" + ":0\r\n" * 6
        answers = [("/", "*5\r\n" + ":0\r\n" * 5), ("/", ":0\r\n"), ("/", "*2\r\n" + six * 2), ("/login", six),
                   ("/login", "*5\r\n:0\r\n:-1\r\n" + six * 3), ("/login", "*4\r\n:1\r\n:2\r\n" + six * 2)]
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(str(self.folder / "other.sock"))
        listener.listen()

        def serve():
            for _, answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer.encode())
                    connection.recv(4096)  # its end

        threading.Thread(target=serve, daemon=True).start()
        port = self.door(types.SimpleNamespace(socket=self.folder / "other.sock"), closed=True)
        self.assertEqual([get(port, path)[0] for path, _ in answers], [503] * len(answers))

    def test_a_rule_that_is_not_there_counts_as_away_and_is_logged(self):
        port = self.door(self.daemon(LOGIN, dict(API, name="other")))
        self.assertEqual(get(port)[0], 200)
        self.assertIn("NORULE no rule 'api'", (self.folder / "nginx.log").read_text())

    def test_the_page_shows_what_is_installed(self):
        shown = [text for language, text in blocks("nginx") if language == "nginx"]
        self.assertEqual(len(shown), 2)
        for text, file in zip(shown, ("tally.conf", "site.conf")):
            self.assertIn(text, (ROOT / "conf/nginx" / file).read_text())


if __name__ == "__main__":
    main(sys.argv)
