#!/usr/bin/env python3
"""Every mutation of tools/mutations still has its place: each text to be replaced occurs exactly once, each test that is named exists.

Whether each is caught says tools/mutations/run.py, which takes too long for every build.
"""
import pathlib
import re
import sys
import unittest

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "mutations"))
from mutations import MUTATIONS  # noqa: E402


class Mutations(unittest.TestCase):
    def test_each_text_occurs_once(self):
        for mutation in MUTATIONS:
            for file, old, new in mutation.edits():
                with self.subTest(mutation=mutation.name, file=file):
                    self.assertEqual((ROOT / file).read_text().count(old), 1)
                    self.assertNotEqual(old, new)

    def test_names_differ(self):
        names = [mutation.name for mutation in MUTATIONS]
        self.assertEqual(len(names), len(set(names)))

    def test_each_named_test_exists(self):
        for mutation in MUTATIONS:
            if mutation.test:
                program, case = mutation.test
                with self.subTest(mutation=mutation.name):
                    text = re.sub(r'"\s*\n\s*"', "", (ROOT / "tests" / f"{program}.cc").read_text())  # literals in pieces
                    self.assertRegex(text, r'TEST_CASE\(\s*"' + re.escape(case) + '"')


if __name__ == "__main__":
    unittest.main()
