#!/usr/bin/env python3
"""The client library as it is installed: found by pkg-config and by CMake, used from C++, C and Python by the examples that are shipped."""
import os
import pathlib
import shutil
import subprocess
import sys

from processes import DAY, PROGRAMS, WAIT_S, Case, main, run

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "tools" / "examples"


class Install(Case):
    def setUp(self):
        super().setUp()
        self.prefix = self.folder / "prefix"
        self.done("cmake", "--install", PROGRAMS["build"], "--component", "client", "--prefix", self.prefix)
        self.libraries = next(self.prefix.rglob("libtally.so")).parent
        os.environ["PKG_CONFIG_PATH"] = str(next(self.prefix.rglob("tally.pc")).parent)
        os.environ["LD_LIBRARY_PATH"] = str(self.libraries)
        self.daemon = self.start("-c", self.small(rules=[{"name": "api", "limit": 100, "window": DAY}])).ready()

    def done(self, *words):
        result = run(*words)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def shares_the_limit(self, *program):
        self.assertEqual(self.done(*program, self.daemon.socket, "api", program[-1], 1000), "allowed 100 of 1000\n")

    def test_an_application_in_cxx_builds_with_pkg_config(self):
        flags = self.done("pkg-config", "--cflags", "--libs", "tally").split()
        self.done("g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", EXAMPLES / "client.cc", *flags, "-o", self.folder / "cc")
        self.shares_the_limit(self.folder / "cc")

    def test_a_handler_in_cxx_is_limited_and_answers_by_itself_while_tallyd_is_away(self):
        flags = self.done("pkg-config", "--cflags", "--libs", "tally").split()
        self.done("g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", EXAMPLES / "handler.cc", *flags, "-o", self.folder / "handler")

        def answers(socket, *more, keys=("bob",) * 150):
            words = list(map(str, [self.folder / "handler", socket, "api", *more]))
            return subprocess.run(words, input="".join(key + "\n" for key in keys), capture_output=True, text=True, timeout=WAIT_S,
                                  check=True).stdout.splitlines()
        told = answers(self.daemon.socket, "open", 20_000)  # a deadline that nothing is expected to reach
        self.assertEqual(told[:100], ["200"] * 100)
        self.assertEqual(len(told), 150)
        for each in told[100:]:
            self.assertRegex(each, r"^429 Retry-After: [1-9]\d*$")
        for keys in ([""] * 101, ["x" * 2000, "x" * 2000 + "y"] * 50 + ["x" * 1024]):  # whatever key a client sends, it is counted
            self.assertEqual([each[:3] for each in answers(self.daemon.socket, "open", 20_000, keys=keys)], ["200"] * 100 + ["429"], keys[0])
        self.assertEqual(answers(self.folder / "nobody.sock"), ["200"] * 150)
        self.assertEqual(answers(self.folder / "nobody.sock", "closed"), ["503"] * 150)

    def test_an_application_in_c_builds_with_pkg_config_and_has_its_fallback(self):
        flags = self.done("pkg-config", "--cflags", "--libs", "tally").split()
        self.done("gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", EXAMPLES / "client.c", *flags, "-o", self.folder / "c")
        self.shares_the_limit(self.folder / "c")
        alone = run(self.folder / "c", self.folder / "nobody.sock", "api", "k", 10)
        self.assertEqual((alone.returncode, alone.stdout), (0, "allowed 10 of 10\n"))
        self.assertIn("cannot reach tallyd", alone.stderr)

    def test_an_application_in_cxx_builds_with_cmake(self):
        source = self.folder / "app"
        source.mkdir()
        shutil.copy(EXAMPLES / "client.cc", source)
        (source / "CMakeLists.txt").write_text("cmake_minimum_required(VERSION 3.16)\nproject(app CXX)\nfind_package(tally 0.1 REQUIRED)\n"
                                               "add_executable(app client.cc)\ntarget_link_libraries(app PRIVATE tally::client)\n")
        self.done("cmake", "-G", "Ninja", "-S", source, "-B", source / "build", f"-DCMAKE_PREFIX_PATH={self.prefix}")
        self.done("cmake", "--build", source / "build")
        self.shares_the_limit(source / "build" / "app")

    def test_an_application_in_python_loads_it(self):
        self.shares_the_limit(sys.executable, EXAMPLES / "client_ctypes.py")
        alone = run(sys.executable, EXAMPLES / "client_ctypes.py", self.folder / "nobody.sock", "api", "k", 10)
        self.assertEqual((alone.returncode, alone.stdout), (0, "allowed 10 of 10\n"))

    def test_options_out_of_range_are_refused(self):
        code = ("import client_ctypes as c\n"
                "try: c.Tally('x', when_away=7)\n"
                "except OSError as error: print(error.errno)\n"
                "try: c.Tally('x', when_away=c.FALLBACK)\n"
                "except OSError as error: print(error.errno)\n")
        self.assertEqual(run(sys.executable, "-B", "-c", code, cwd=EXAMPLES).stdout, "22\n22\n")

    def test_what_a_caller_does_wrong_is_not_allowed_and_told(self):
        code = ("import client_ctypes as c, ctypes\n"
                "t = c.Tally('/nobody.sock', when_away=c.OPEN)\n"
                "print([t.take('api', key).allowed for key in ('k', b'', b'x' * 1024, b'x' * 1025)])\n"
                "d = c.Decision(allowed=1)\n"
                "print(t.c.tally_take(None, b'api', b'k', 1, 1, ctypes.byref(d)), d.allowed, ctypes.get_errno())\n"
                "print(t.c.tally_take(t.client, None, b'k', 1, 1, None), t.c.tally_take(t.client, b'api', None, 1, 1, None))\n"
                "t.c.tally_error(None, None, 0)\n"
                "for wrong in (dict(size=0), dict(size=64, deadline_us=2**63 - 1), dict(size=64, tick_us=10)):\n"
                "    print(t.c.tally_open(b'x', ctypes.byref(c.Options(**wrong))), ctypes.get_errno())\n")
        result = run(sys.executable, "-B", "-c", code, cwd=EXAMPLES)
        self.assertEqual(result.stdout, "[1, 0, 1, 0]\n0 0 22\n0 0\nNone 22\nNone 22\nNone 22\n", result.stderr)

    def test_nothing_but_the_interface_is_exported(self):
        symbols = self.done("nm", "-DC", "--defined-only", self.libraries / "libtally.so").splitlines()
        names = [line.split(" ", 2)[2] for line in symbols]
        strangers = [name for name in names if not name.startswith(("tally_", "tally::Client::"))]
        self.assertEqual(strangers, [])
        self.assertIn("tally_take", names)


if __name__ == "__main__":
    PROGRAMS["build"] = sys.argv.pop(3)
    main(sys.argv)
