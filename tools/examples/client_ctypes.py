#!/usr/bin/env python3
"""The client library from Python, by ctypes. Prints how many of N requests were allowed.

   python3 client_ctypes.py /run/tallyd/tallyd.sock api user:123 1000
"""
import ctypes
import os
import sys


class Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("deadline_us", ctypes.c_int64), ("tick_us", ctypes.c_int64), ("when_away", ctypes.c_int32),
                ("fallback_limit", ctypes.c_uint32), ("fallback_window_ms", ctypes.c_int64), ("keys", ctypes.c_size_t)]


class Decision(ctypes.Structure):
    _fields_ = [("allowed", ctypes.c_int32), ("reason", ctypes.c_int32), ("limit", ctypes.c_uint32), ("remaining", ctypes.c_uint32),
                ("retry_after_us", ctypes.c_int64), ("reset_after_us", ctypes.c_int64)]


OPEN, CLOSED, FALLBACK = range(3)
AWAY = 7


class Tally:
    def __init__(self, socket=None, when_away=OPEN, deadline_us=0, library="libtally.so.0"):
        self.c = ctypes.CDLL(library, use_errno=True)
        self.c.tally_open.restype = ctypes.c_void_p
        self.c.tally_open.argtypes = [ctypes.c_char_p, ctypes.POINTER(Options)]
        self.c.tally_take.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.POINTER(Decision)]
        self.c.tally_error.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        self.c.tally_close.argtypes = [ctypes.c_void_p]
        options = Options(size=ctypes.sizeof(Options), when_away=when_away, deadline_us=deadline_us)
        self.client = self.c.tally_open(socket.encode() if socket else None, ctypes.byref(options))
        if not self.client:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def take(self, rule, key, cost=1):
        decision = Decision()
        key = key if isinstance(key, bytes) else key.encode()
        self.c.tally_take(self.client, rule.encode(), key, len(key), cost, ctypes.byref(decision))
        return decision

    def error(self):
        text = ctypes.create_string_buffer(256)
        self.c.tally_error(self.client, text, len(text))
        return text.value.decode()

    def close(self):
        self.c.tally_close(self.client)
        self.client = None


def main():
    if len(sys.argv) != 5:
        print("usage: client_ctypes.py SOCKET RULE KEY N", file=sys.stderr)
        return 64
    tally = Tally(sys.argv[1], when_away=OPEN)
    n, allowed = int(sys.argv[4]), 0
    for i in range(n):
        decision = tally.take(sys.argv[2], sys.argv[3])
        allowed += decision.allowed
        if i == 0 and decision.reason == AWAY:
            print(tally.error(), file=sys.stderr)
    tally.close()
    print(f"allowed {allowed} of {n}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
