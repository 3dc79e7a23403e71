#!/usr/bin/env python3
"""A rate limit for WSGI applications, by redis-py (Debian: python3-redis): RateLimit(application, ...) answers 429 by itself.

   python3 wsgi.py /run/tallyd/tallyd.sock api 8000    serves an application that says hello; [open|closed [DEADLINE_MS]] may follow
"""
import socketserver
import sys
import wsgiref.simple_server

import redis


def client_address(environ):
    return environ["REMOTE_ADDR"]


class RateLimit:
    def __init__(self, application, socket, rule, key=client_address, when_away="open", deadline_ms=50):
        self.application, self.rule, self.key, self.when_away = application, rule, key, when_away
        # Connections are kept; connecting, asking and the answer may take so long each.
        self.tallyd = redis.Redis(unix_socket_path=socket, socket_timeout=deadline_ms / 1000)

    def __call__(self, environ, start_response):
        key = self.key(environ)
        key = str("" if key is None else key).encode()[:1024] or b"-"  # any other key is an error for tallyd, and would count as its absence
        try:
            limited, limit, remaining, retry_after, reset, _ = self.tallyd.execute_command("TALLY.TAKE", self.rule, key)
        except Exception as problem:  # RedisError, but also AttributeError: redis-py 4.3 has one for a Unix socket that breaks while it is looked at
            print("no answer from tallyd:", problem, file=environ["wsgi.errors"])
            if self.when_away == "closed":
                start_response("503 Service Unavailable", [("Content-Length", "0")])
                return []
            return self.application(environ, start_response)
        headers = [("X-RateLimit-Limit", str(limit)), ("X-RateLimit-Remaining", str(remaining)), ("X-RateLimit-Reset", str(-(-reset // 1000)))]
        if limited:
            if retry_after >= 0:
                headers.append(("Retry-After", str(max(1, -(-retry_after // 1000)))))
            start_response("429 Too Many Requests", [("Content-Length", "0"), *headers])
            return []
        return self.application(environ, lambda status, own, *more: start_response(status, own + headers, *more))


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "6")])
    return [b"hello\n"]


class Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


if __name__ == "__main__":
    path, rule, port, *more = sys.argv[1:]
    when_away, deadline_ms = (more + ["open", "50"][len(more):])
    limited_hello = RateLimit(hello, path, rule, when_away=when_away, deadline_ms=int(deadline_ms))
    wsgiref.simple_server.make_server("127.0.0.1", int(port), limited_hello, server_class=Server).serve_forever()
