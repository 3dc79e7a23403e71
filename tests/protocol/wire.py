"""Plain datagrams <-> values, driven by the tables of docs/protocol.md. Every field that is not named is 0."""
import re

from document import KINDS
from hashes import MASK, keyed_hash

MAGIC, VERSION, MOST = b"Ty", 1, 1400
BY_NAME = {kind.name: kind for kind in KINDS.values()}
NO_BALLOT = (0, 0)  # counter, node


class Refused(Exception):
    """The reason, as tallyd_sync_dropped_total has it."""


class Entry:
    """A header, or an entry: entry.used, 0 where it was not said."""

    def __init__(self, name, **values):
        self.name, self.values = name, values
        unknown = set(values) - {field.name for field in BY_NAME[name].fields}
        if unknown:
            raise TypeError(f"{name} has no {unknown}")

    def __getattr__(self, field):
        for known in BY_NAME[self.name].fields:
            if known.name == field:
                return self.values.get(field, zero(known))
        raise AttributeError(f"{self.name} has no {field}")

    def __eq__(self, other):
        return self.name == other.name and all(getattr(self, f.name) == getattr(other, f.name) for f in BY_NAME[self.name].fields)

    def __repr__(self):
        return " ".join([self.name, *(f"{f.name}={text_of(f, getattr(self, f.name))}" for f in BY_NAME[self.name].fields
                                      if is_raw(f) or getattr(self, f.name) != zero(f))])


def is_raw(field):
    return field.kind.endswith(" bytes")


def zero(field):
    if field.kind.startswith("ballot"):
        return NO_BALLOT
    if field.kind.startswith("text"):
        return b""
    return bytes(int(field.kind.split()[0])) if is_raw(field) else 0


def text_of(field, value):
    if is_raw(field) or field.kind.startswith("text"):
        return value.hex()
    if field.kind == "flag":
        return "yes" if value else "no"
    if field.kind == "word":
        return f"{value:016x}"
    if field.kind.startswith("ballot"):
        return f"{value[0]}@{value[1]:016x}"
    return str(value)


def value_of(field, text):
    if is_raw(field) or field.kind.startswith("text"):
        return bytes.fromhex(text)
    if field.kind == "flag":
        return int(text == "yes")
    if field.kind == "word":
        return int(text, 16)
    if field.kind.startswith("ballot"):
        counter, node = text.split("@")
        return int(counter), int(node, 16)
    return int(text)


def parsed(line):
    """What repr() wrote."""
    name, *words = line.split()
    fields = {field.name: field for field in BY_NAME[name].fields}
    return Entry(name, **{key: value_of(fields[key], value) for key, value in (word.split("=", 1) for word in words)})


# --- numbers ---

def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7f | 0x80)
        n >>= 7
    return bytes(out + bytes([n]))


def zigzag(n):
    return 2 * n if n >= 0 else -2 * n - 1


def unzigzag(n):
    return n >> 1 if n % 2 == 0 else -(n + 1 >> 1)


def signed(n):
    """The same modulo 2^64, from -2^63 on."""
    return (n + (1 << 63) & MASK) - (1 << 63)


def pack(n, unit):
    return 2 * (n // unit) + 1 if n % unit == 0 else 2 * n


class Number:
    """What the column "as" says of a number in a varint: its range, and how it is packed."""

    def __init__(self, kind):
        found = re.fullmatch(r"(u8|u16|u32|u64|packed \d+|duration)(?: to (\d+))?(?: left)?", kind)
        word = "packed 1000000" if found[1] == "duration" else found[1]
        self.unit = int(word.split()[1]) if word.startswith("packed") else 0
        most = {"u8": 8, "u16": 16, "u32": 32, "u64": 64}.get(word, 63)
        self.most = int(found[2]) if found[2] else (1 << most) - 1
        self.left = kind.endswith(" left")

    def usual(self):
        return self.most if self.left else 0

    def write(self, n):
        return varint(pack(n, self.unit) if self.unit else self.most - n if self.left else n)

    def read(self, n):
        value = n if not self.unit else (n >> 1) * (self.unit if n & 1 else 1)
        if value > self.most:
            raise Refused("malformed")
        return self.most - value if self.left else value


def base_of(field, entry, header):
    """What a number is told relative to, or None."""
    words = field.kind.split()
    if words[0] == "near":
        return getattr(header, words[1])
    if words[0] in ("above", "about"):
        return getattr(entry, words[1]) - (getattr(entry, words[3]) if words[2:] else 0) & MASK
    return None


def usual(field, entry, header):
    """The value that has no bit set."""
    if field.kind.split()[0] in ("above", "about"):
        return base_of(field, entry, header)
    return Number(field.kind).usual() if field.kind.endswith(" left") else zero(field)


# --- writing ---

def body_of(entry, fields, header, newer):
    """newer: as a later version would write it, with a field in each body that nobody knows yet."""
    presence, out = 0, b""
    for field in fields:
        value = getattr(entry, field.name)
        if field.bit is None:
            out += value if is_raw(field) else Number(field.kind).write(value)
        elif field.kind.startswith("ballot"):
            bits, data = write_ballot(value, getattr(header, field.kind.split()[2]))
            presence |= bits << field.bit
            out += data
        elif value != usual(field, entry, header):
            presence |= 1 << field.bit
            out += write_field(field, value, entry, header)
    if newer:
        presence |= 1 << 60
        out += b"\xff\xff\x07"
    return varint(presence) + out


def write_ballot(value, usual):
    counter, node = value
    is_usual = node == usual and usual != 0
    bits = is_usual | (counter != 0) << 1 | (node != 0 and not is_usual) << 2
    return bits, (varint(counter) if counter else b"") + (node.to_bytes(8, "little") if bits & 4 else b"")


def write_field(field, value, entry, header):
    if field.kind == "flag":
        return b""
    if field.kind == "word":
        return value.to_bytes(8, "little")
    if field.kind.startswith("text"):
        return varint(len(value)) + value
    if field.kind == "signed":
        return varint(zigzag(value))
    base = base_of(field, entry, header)
    if base is None:
        return Number(field.kind).write(value)
    return varint(value - base & MASK) if field.kind.startswith("above") else varint(zigzag(signed(value - base)))


def lists(entries):
    """Those that follow each other and say the same of all, together; every other by itself."""
    found = []
    for entry in entries:
        kind = BY_NAME[entry.name]
        if found and kind.comes_in_lists and found[-1][0].name == entry.name and \
                all(getattr(found[-1][0], field.name) == getattr(entry, field.name) for field in kind.part(False)):
            found[-1].append(entry)
        else:
            found.append([entry])
    return found


def encode(header, entries, key, version=VERSION, newer=False):
    head = body_of(header, KINDS[0].fields, header, newer)
    out = MAGIC + bytes([version]) + varint(len(head)) + head
    for together in lists(entries):
        if newer:
            out += varint(300) + varint(4) + b"\xff" * 4
        kind = BY_NAME[together[0].name]
        body = body_of(together[0], kind.part(False), header, newer)
        if kind.comes_in_lists:
            body += b"".join(body_of(entry, kind.part(True), header, newer) for entry in together)
        out += varint(kind.type) + varint(len(body)) + body
    return out + keyed_hash(out, key).to_bytes(8, "little")


# --- reading ---

class Reader:
    def __init__(self, data, at=0, end=None):
        self.data, self.at, self.end = data, at, len(data) if end is None else end

    def take(self, n):
        if n > self.end - self.at:
            raise Refused("malformed")
        self.at += n
        return self.data[self.at - n:self.at]

    def varint(self):
        n = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            if shift == 63 and byte > 1:
                break
            n |= (byte & 0x7f) << shift
            if byte < 0x80:
                return n
        raise Refused("malformed")

    def word(self):
        return int.from_bytes(self.take(8), "little")

    def part(self):
        length = self.varint()
        self.take(length)
        return Reader(self.data, self.at - length, self.at)


class Datagram:
    def __init__(self, header, entries):
        self.header, self.entries = header, entries

    def __repr__(self):
        return "\n".join(map(repr, [self.header, *self.entries]))


class Quiet:
    """Takes what decode() finds where; explain.py has one that keeps it."""

    def found(self, reader, label, value=""):
        pass


def read_ballot(reader, bits, usual):
    counter = Number("u32").read(reader.varint()) if bits & 2 else 0
    node = reader.word() if bits & 4 else 0
    if bits & 1 and bits & 4:
        raise Refused("malformed")
    return counter, usual if bits & 1 else node


def read_field(reader, field, entry, header):
    if field.kind == "flag":
        return 1
    if field.kind == "word":
        return reader.word()
    n = reader.varint()
    if field.kind.startswith("text"):
        if n > int(field.kind.split()[2]):
            raise Refused("malformed")
        return reader.take(n)
    if field.kind == "signed":
        return unzigzag(n)
    base = base_of(field, entry, header)
    if base is None:
        return Number(field.kind).read(n)
    return base + (n if field.kind.startswith("above") else unzigzag(n)) & MASK


def read_body(reader, fields, entry, header, watch):
    """Into `entry`. Returns the bits of the presence word that nobody knows."""
    presence = reader.varint()
    watch.found(reader, "presence", f"{presence:b}")
    known = 0
    for field in fields:
        if field.bit is None:
            value = reader.take(int(field.kind.split()[0])) if is_raw(field) else Number(field.kind).read(reader.varint())
        else:
            mask = (1 << field.bits) - 1
            known |= mask << field.bit
            bits = presence >> field.bit & mask
            if field.bits == 3:
                value = read_ballot(reader, bits, getattr(header, field.kind.split()[2]))
            elif bits:
                value = read_field(reader, field, entry, header)
            else:
                value = usual(field, entry, header)
            if not bits:
                entry.values[field.name] = value
                continue
        entry.values[field.name] = value
        watch.found(reader, field.name, text_of(field, value))
    return presence & ~known


def read_entry(part, kind, header, watch):
    """That of a type that does not come in lists."""
    entry = Entry(kind.name)
    read_body(part, kind.fields, entry, header or entry, watch)
    if part.at < part.end:
        part.take(part.end - part.at)
        watch.found(part, "unknown")
    return entry


def read_list(part, kind, header, watch):
    def skip(unknown):
        for _ in range(unknown.bit_count()):
            part.varint()
        if unknown:
            watch.found(part, "unknown")
    all_ = Entry(kind.name)
    skip(read_body(part, kind.part(False), all_, header, watch))
    entries = []
    while part.at < part.end:
        entries.append(Entry(kind.name, **all_.values))
        skip(read_body(part, kind.part(True), entries[-1], header, watch))
    return entries


def decode(data, key, watch=Quiet()):
    if len(data) < 11:
        raise Refused("too_short")
    if len(data) > MOST:
        raise Refused("too_long")
    if data[:2] != MAGIC:
        raise Refused("bad_magic")
    if data[2] != VERSION:
        raise Refused("version")
    if int.from_bytes(data[-8:], "little") != keyed_hash(data[:-8], key):
        raise Refused("forged")
    reader = Reader(data, 0, len(data) - 8)
    for size, label in ((2, "magic"), (1, "version")):
        reader.take(size)
        watch.found(reader, label, "Ty" if size == 2 else str(data[2]))
    part = reader.part()
    watch.found(part, "header", f"of {part.end - part.at} bytes")
    header = read_entry(part, KINDS[0], None, watch)
    entries = []
    while reader.at < reader.end:
        type_ = reader.varint()
        kind = KINDS.get(type_) if type_ else None
        watch.found(reader, kind.name if kind else "unknown entry", f"type {type_}")
        part = reader.part()
        watch.found(part, "", f"of {part.end - part.at} bytes")
        if kind and kind.comes_in_lists:
            entries += read_list(part, kind, header, watch)
        elif kind:
            entries.append(read_entry(part, kind, header, watch))
        else:
            part.take(part.end - part.at)
            watch.found(part, "unknown")
    end = Reader(data, len(data) - 8)
    end.word()
    watch.found(end, "hash", f"{int.from_bytes(data[-8:], 'little'):016x}")
    return Datagram(header, entries)
