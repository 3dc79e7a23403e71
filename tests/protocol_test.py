#!/usr/bin/env python3
"""docs/protocol.md against itself, and against what tallyd has always written: an implementation that is driven by its tables reads
its examples, its test vectors and tests/wire_v1.txt.
"""
import pathlib
import re
import sys
import unittest

sys.dont_write_bytecode = True  # the sources' folder stays as it is
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "protocol"))
import document  # noqa: E402
import hashes  # noqa: E402
from explain import bytes_of, explain, explain_sealed  # noqa: E402
from seal import read_secret, seal, unseal  # noqa: E402
from wire import BY_NAME, Refused, decode, encode, parsed, varint  # noqa: E402

VECTORS = {name: (what, result) for name, what, result in document.table(document.TEXT, "| vector | input | result |")}


def quoted(text):
    return re.findall(r"`([^`]+)`", text)


def kept():
    """(id key, name, bytes, lines) of each datagram of the first version."""
    id_, *blocks = (HERE / "wire_v1.txt").read_text().strip().split("\n\n")
    key = bytes.fromhex(id_.splitlines()[-1].split()[1])
    return [(key, name, bytes.fromhex(data), says) for name, data, *says in (block.splitlines() for block in blocks)]


class Tables(unittest.TestCase):
    def test_each_type_has_its_tables_and_their_bits_follow_each_other(self):
        self.assertEqual(sorted(document.KINDS), list(range(max(document.KINDS) + 1)))
        for kind in document.KINDS.values():
            for each in (False, True) if kind.comes_in_lists else (False,):
                bit = 0
                for field in kind.part(each):
                    if field.bit is not None:
                        self.assertEqual(field.bit, bit, f"{kind.name}.{field.name}")
                        bit += field.bits
                self.assertTrue(0 < bit <= 64, kind.name)
                raw = [field.bit is None for field in kind.part(each)]
                self.assertEqual(raw, sorted(raw, reverse=True), f"{kind.name}: fields without a bit come first")


class Vectors(unittest.TestCase):
    def test_the_hashes_give_what_the_page_says(self):
        def result(name):
            return VECTORS[name][1]
        key, data = map(bytes.fromhex, quoted(VECTORS["siphash"][0]))
        self.assertEqual(f"{hashes.keyed_hash(data, key):016x}", result("siphash"))
        self.assertEqual(hashes.siphash(data, key, wide=True).hex(), result("siphash128"))
        self.assertEqual(f"{hashes.mix(1):016x}", result("mix"))
        entry = quoted(VECTORS["node id"][0])[0]
        self.assertEqual(f"{hashes.node_id(entry, hashes.PUBLIC_ID):016x}", result("node id"))
        id_ = hashes.key_id(*quoted(VECTORS["key id"][0]), hashes.PUBLIC_ID)
        self.assertEqual(id_.hex(), result("key id"))
        self.assertEqual(hashes.rule_number(quoted(VECTORS["rule number"][0])[0])[::-1].hex(), result("rule number"))
        entries = quoted(VECTORS["roster hash"][0])
        self.assertEqual(f"{hashes.roster_hash(3, entries, [], hashes.PUBLIC_ID):016x}", result("roster hash"))
        owners = quoted(VECTORS["roster hash with an aggregator"][0])
        self.assertEqual(f"{hashes.roster_hash(3, entries, owners, hashes.PUBLIC_ID):016x}", result("roster hash with an aggregator"))
        self.assertEqual(hashes.group(id_, entries, hashes.PUBLIC_ID), quoted(result("group")))
        seal_key = bytes.fromhex(quoted(VECTORS["fingerprint of a seal key"][0])[0])
        self.assertEqual(f"{hashes.fingerprint_of_seal_key(seal_key):08x}", result("fingerprint of a seal key"))

    def test_rule_numbers_are_xxh3_of_names_of_every_length(self):
        for name, number in {"a": 0xe6c632b61e964e1f, "ab": 0xa873719c24d5735c, "abc": 0x78af5f94892f3950, "login": 0x4633ef546e32c77c,
                             "soon_is_good": 0xe71e1d1b0fd88877, "0123456789abcdef": 0x64439946d8fa212d,
                             "a-rule-of-seventeen": 0x4399998a299f9b50,
                             "a-rule-of-more-than-thirty-two-characters-is-this": 0x6b7df1e6069311aa,
                             "0123456789012345678901234567890123456789012345678901234567890123": 0x9d748132bb6ed89e}.items():
            self.assertEqual(hashes.xxh3(name.encode()), number, name)


class Examples(unittest.TestCase):
    def test_every_example_is_explained_byte_by_byte_as_it_is(self):
        blocks = document.blocks(document.TEXT)
        plain = [lines for word, lines in blocks if word == "plain"]
        self.assertGreaterEqual(len(plain), 3)
        for lines in plain:
            data = bytes_of(lines)
            self.assertEqual(explain(data, hashes.PUBLIC_ID), lines)
            said = decode(data, hashes.PUBLIC_ID)
            self.assertEqual(encode(said.header, said.entries, hashes.PUBLIC_ID), data)

    def test_the_sealed_example_is_opened_with_its_keys_and_has_in_it_what_is_shown(self):
        found = dict(document.blocks(document.TEXT))
        before = document.TEXT.split("```sealed")[0].splitlines()[-2]
        keys = read_secret("\n".join(" ".join(pair) for pair in re.findall(r"`(id|seal)` ([0-9a-f]{32,})", before)))
        data = bytes_of(found["sealed"])
        self.assertEqual(explain_sealed(data, keys["seal"]), found["sealed"])
        content = unseal(data, [keys["seal"]])
        self.assertEqual(explain(content, keys["id"]), found["content"])
        self.assertEqual(seal(content, keys["seal"], data[7:31]), data)
        with self.assertRaisesRegex(Refused, "forged"):
            unseal(data[:-1] + bytes([data[-1] ^ 1]), [keys["seal"]])


class FirstVersion(unittest.TestCase):
    def test_what_it_wrote_is_read_as_the_same_values_and_written_as_the_same_bytes(self):
        seen = set()
        for key, name, data, says in kept():
            said = decode(data, key)
            wanted = [parsed(line) for line in says]
            self.assertEqual([said.header, *said.entries], wanted, name)
            self.assertEqual(encode(wanted[0], wanted[1:], key), data, name)
            seen.update(entry.name for entry in wanted)
        self.assertEqual(seen, set(BY_NAME), "tests/wire_v1.txt has every kind")

    def test_what_a_later_version_adds_is_skipped(self):
        for key, name, data, says in kept():
            wanted = [parsed(line) for line in says]
            newer = encode(wanted[0], wanted[1:], key, newer=True)
            if len(newer) <= 1400:
                said = decode(newer, key)
                self.assertEqual([said.header, *said.entries], wanted, name)


class Damage(unittest.TestCase):
    """As the page says what is malformed; tests/wire_damage_test.cc has the same of tallyd."""

    def refused(self, type_, body):
        head = encode(parsed("header"), [], hashes.PUBLIC_ID)[:-8] + varint(type_) + varint(len(body)) + body
        try:
            decode(head + hashes.keyed_hash(head, hashes.PUBLIC_ID).to_bytes(8, "little"), hashes.PUBLIC_ID)
        except Refused as reason:
            return str(reason)
        return None

    def test_numbers_that_their_fields_cannot_hold_and_bodies_that_end_early_are_malformed(self):
        key = bytes(12)
        self.assertIsNone(self.refused(7, b"\0" + key))
        self.assertEqual(self.refused(7, b"\0" + key[1:]), "malformed")
        self.assertEqual(self.refused(7, b"\1" + key), "malformed")
        self.assertIsNone(self.refused(7, b"\1" + key + b"\xff" * 9 + b"\1"))
        self.assertEqual(self.refused(7, b"\1" + key + b"\xff" * 9 + b"\2"), "malformed")
        self.assertIsNone(self.refused(1, b"\1" + bytes(4) + varint(1 << 31)))
        self.assertEqual(self.refused(1, b"\1" + bytes(4) + varint((1 << 31) + 1)), "malformed")
        self.assertEqual(self.refused(1, b"\2" + bytes(4) + varint(2 * 1001 + 1)), "malformed")
        self.assertIsNone(self.refused(1, bytes(5) + bytes(15) + bytes(15)))  # two reports in a list
        self.assertEqual(self.refused(1, bytes(5) + bytes(15) + bytes(14)), "malformed")
        self.assertIsNone(self.refused(2, b"\0\4" + key + b"\1\xff\1"))
        self.assertEqual(self.refused(2, b"\0\4" + key + b"\1\x80\2"), "malformed")  # a pool of less than nothing
        self.assertIsNone(self.refused(3, b"\0" + varint(0b1000) + bytes(20)))
        self.assertEqual(self.refused(3, b"\0" + varint(0b1010) + bytes(20)), "malformed")  # a ballot of two nodes
        self.assertIsNone(self.refused(200, b"\xff"))


if __name__ == "__main__":
    unittest.main()
