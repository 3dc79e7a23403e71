#!/usr/bin/env python3
"""tools/field: a case runs on real processes, its table comes out, and the bound held. Its timings are not judged here.

Usage: field_test.py BUILD_DIRECTORY [unittest arguments].
"""
import io
import json
import pathlib
import sys
import tempfile
import unittest
from contextlib import redirect_stdout
from unittest import mock

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "field"))
import field  # noqa: E402
import failover  # noqa: E402
import rows  # noqa: E402

BUILD = None


class Field(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="field-test-", dir="/tmp")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_field(self, *words):
        with mock.patch.object(sys, "argv", ["field.py", "--build", str(BUILD), *words]), redirect_stdout(io.StringIO()) as out:
            return field.main(), out.getvalue()

    def test_a_fleet_that_loses_an_owner_keeps_the_bound_and_the_table_comes_out(self):
        figures = self.folder / "figures.json"
        with mock.patch.object(failover, "NODES", 3), mock.patch.object(failover, "WINDOW_S", 2), mock.patch.object(failover, "LIMIT", 100):
            status, text = self.run_field("failover", "--runs", "1", "--seed", "1", "--json", str(figures))
        self.assertIn(status, (0, 1), text)
        found = json.loads(figures.read_text())["rows"]
        bounds = [row for row in found if row["what"].endswith("the bound")]
        self.assertEqual({"failover, strict", "failover, 5%"}, {row["case"] for row in bounds})
        for row in bounds:
            self.assertTrue(row["kept"], row)
        for row in found:
            self.assertIn(row["what"], text)

    def test_a_broken_promise_is_shown_and_makes_it_fail(self):
        for figure, status in ((1, 0), (3, 1)):
            with self.subTest(figure), mock.patch.object(field, "all_cases", lambda: {
                    "one": (lambda ground: [rows.at_most("one", "of something", 2, [1, figure])], "")}):
                ended, text = self.run_field("one")
                self.assertEqual(status, ended)
                self.assertIn("BROKEN" if status else "kept", text)


if __name__ == "__main__":
    BUILD = pathlib.Path(sys.argv[1])
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
