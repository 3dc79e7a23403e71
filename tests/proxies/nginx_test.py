#!/usr/bin/env python3
"""nginx, which asks by Lua, as docs/integrations.md installs it: nginx_test.py TALLYD TALLY [TEST...]"""
import sys

sys.dont_write_bytecode = True
from proxies import API, HOUR_S, LOGIN, LONG_MS, ROOT, WORKERS, Doors, Kept, Plain, blocks, free_ports, get, statuses  # noqa: E402
from processes import main  # noqa: E402

SITE, SETTINGS = "etc/nginx/conf.d/site.conf", "etc/nginx/conf.d/tally.conf"


class Nginx(Kept, Doors):
    limit_headers = "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"
    key = "127.0.0.1"
    keepers = WORKERS

    def door(self, daemon, closed=False, deadline_ms=LONG_MS, login_key="key = ngx.var.http_x_user"):
        port, app = free_ports(2)
        self.install("nginx")
        self.edit(SETTINGS, {"/run/tallyd/tallyd.sock": daemon.socket, "/etc/nginx/tally/": f"{self.folder}/etc/nginx/tally/",
                             "deadline_ms = 50": f"deadline_ms = {deadline_ms}", **({'when_away = "open"': 'when_away = "closed"'} if closed else {})})
        self.edit(SITE, {"listen 8080": f"listen 127.0.0.1:{port}", "127.0.0.1:8000": f"127.0.0.1:{app}",
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
