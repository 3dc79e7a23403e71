#!/usr/bin/env python3
"""Includes point one way, and what decides stays free of clocks, sockets, threads and logs.

Checks every file below src and include against the table of layers (an arrow of the architecture is one word in it), and
then checks itself: each kind of offence, put into a small tree, must be found.
"""
import pathlib
import re
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# What a layer may include of ours.
LAYERS = {
    "base": {"base"},
    "core": {"base", "core"},
    "cluster": {"base", "core", "cluster"},
    "books": {"base", "core", "cluster", "books"},
    "config": {"base", "core", "cluster", "config"},
    "doors": {"base", "core", "doors"},
    "client": {"base", "core", "cluster", "client", "tally"},
    "sim": {"base", "core", "cluster", "client", "sim"},
    "daemon": {"base", "core", "cluster", "books", "config", "doors", "daemon", "tally"},
    "rls": {"base", "core", "config", "doors", "daemon", "rls"},
    "tally": {"tally"},  # include/tally: what applications compile against
}

# Libraries: where a header may be included, as path prefixes.
LIBRARIES = {
    r"asio(/|\.hpp)": ["src/daemon/"],
    r"prometheus/": ["src/daemon/"],
    r"nlohmann/": ["src/config/", "src/doors/http", "src/books/batch", "src/books/kept"],
    r"cxxopts\.hpp": ["src/daemon/main", "src/daemon/options"],
    r"ares(_\w+)?\.h": ["src/daemon/lookup"],
    r"xxhash\.h": ["src/base/hash"],
    r"hiredis/": ["src/client/connection", "src/daemon/redis_", "src/daemon/books_peer", "src/daemon/central"],
    r"sodium(/|\.h)": ["src/base/", "src/cluster/seal", "src/daemon/"],
    r"(grpc|grpcpp|envoy|google)/": ["src/rls/"],
}

PURE = {"base", "core", "cluster", "books", "config", "doors"}  # bytes, structs and `now` in; bytes and structs out
IMPURE_HEADERS = re.compile(
    r"(thread|mutex|shared_mutex|condition_variable|future|stop_token|semaphore|barrier|latch|iostream|fstream|filesystem|"
    r"ctime|time\.h|pthread\.h|unistd\.h|fcntl\.h|poll\.h|signal\.h|csignal|syslog\.h|netdb\.h|"
    r"(netinet|net)/.*|arpa/(?!inet\.h$).*|"  # inet_pton is a parser
    r"sys/(?!mman\.h$).*)$")                 # mmap is memory, not a door to the world
IMPURE_CALLS = re.compile(
    r"\b(steady_clock|system_clock|high_resolution_clock|clock_gettime|gettimeofday|random_device|printf|fprintf|std::cerr|"
    r"std::cout)\b")
ATOMIC = ["src/core/slots", "src/base/ring.h"]
MODEL = ("src/core/slots_word.h", "model/word.h")  # the words of a slot, under a test that tries all interleavings
LAST_WORDS = "src/base/fail.h"  # a failed CHECK says where before it aborts
MAP = ("src/daemon/main.cc", "rls/door.h")  # main builds everything, what lies above the daemon's layer too

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
COMMENT = re.compile(r'//.*$')


def offences(root):
    """Every offence below root, as 'path:line: what'."""
    found = []
    files = [p for top in ("src", "include") for p in sorted((root / top).rglob("*")) if p.suffix in (".h", ".cc")]
    for path in files:
        name = path.relative_to(root).as_posix()
        layer = name.split("/")[1]
        if layer not in LAYERS:
            found.append(f"{name}:1: no such layer: {layer}")
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            found += [f"{name}:{number}: {what}" for what in offences_in_line(name, layer, line)]
    return found


def offences_in_line(name, layer, line):
    include = INCLUDE.match(line)
    if not include:
        pure = layer in PURE and name != LAST_WORDS
        call = IMPURE_CALLS.search(COMMENT.sub("", line)) if pure else None
        return [f"{call.group(0)} in {layer}, which takes what it needs as arguments"] if call else []
    kind, header = include.groups()
    if kind == '"':
        to = header.split("/")[0] if "/" in header else "(no folder)"
        return [] if to in LAYERS[layer] or (name, header) in (MODEL, MAP) else [f"{layer} may not include {header}"]
    for library, places in LIBRARIES.items():
        if re.match(library, header):
            return [] if name.startswith(tuple(places)) else [f"{header} does not belong into {name}"]
    if layer in PURE and IMPURE_HEADERS.match(header):
        return [f"<{header}> in {layer}: no clock, socket, thread or log below the daemon"]
    if layer in ("base", "core") and header == "atomic" and not name.startswith(tuple(ATOMIC)):
        return ["<atomic> belongs into the slots (and the ring)"]
    return []


class Includes(unittest.TestCase):
    def test_the_tree_has_no_offence(self):
        self.assertTrue(any((ROOT / "src").rglob("*.cc")), "no sources found: the test looks in the wrong place")
        self.assertEqual([], offences(ROOT))

    def test_each_kind_of_offence_is_found(self):
        bad = {
            "src/base/a.h": '#include "core/slots.h"',
            "src/core/b.cc": '#include "cluster/node.h"',
            "src/cluster/c.cc": '#include "config/config.h"',
            "src/config/d.cc": "#include <asio.hpp>",
            "src/doors/e.cc": "#include <sys/socket.h>",
            "src/doors/resp.cc": "#include <nlohmann/json.hpp>",
            "src/core/f.cc": "#include <mutex>",
            "src/core/limiter.cc": "#include <atomic>",
            "src/core/g.cc": "auto t = std::chrono::steady_clock::now();",
            "src/sim/h.cc": '#include "daemon/workers.h"',
            "src/daemon/i.cc": '#include "sim/fleet.h"',
            "src/daemon/j.cc": '#include "neighbour.h"',
            "src/daemon/service.cc": '#include "rls/door.h"',
            "src/daemon/metrics.cc": "#include <grpcpp/server.h>",
            "src/rls/m.cc": '#include "cluster/node.h"',
            "src/daemon/workers.cc": "#include <cxxopts.hpp>",
            "include/tally/k.h": '#include "base/time.h"',
            "src/other/l.cc": "",
        }
        for name, text in bad.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / name
                path.parent.mkdir(parents=True)
                path.write_text(text + "\n")
                self.assertEqual(1, len(offences(pathlib.Path(folder))), text)

    def test_what_is_allowed_is_not_an_offence(self):
        good = {
            "src/core/slots.cc": '#include <atomic>\n#include "base/hash.h"\n#include <sys/mman.h>\n',
            "src/core/a.h": "// reads no steady_clock\n#include <vector>\n",
            "src/daemon/b.cc": '#include <asio.hpp>\n#include <thread>\n#include "doors/resp.h"\n#include "cluster/node.h"\n',
            "src/doors/http.cc": "#include <nlohmann/json.hpp>\n",
            "src/daemon/main.cc": '#include "rls/door.h"\n',
            "src/rls/door.cc": '#include <grpcpp/server.h>\n#include <envoy/service/ratelimit/v3/rls.pb.h>\n#include "daemon/question.h"\n',
        }
        with tempfile.TemporaryDirectory() as folder:
            for name, text in good.items():
                path = pathlib.Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            self.assertEqual([], offences(pathlib.Path(folder)))


if __name__ == "__main__":
    unittest.main()
