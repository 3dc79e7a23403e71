"""docs/protocol.md as data: the tables of fields, the test vectors, the examples."""
import pathlib
import re

PATH = pathlib.Path(__file__).resolve().parent.parent.parent / "docs" / "protocol.md"


class Field:
    """One row of a table of fields."""

    def __init__(self, bit, name, kind, meaning):
        self.name, self.kind, self.meaning = name, kind, meaning
        self.bit = None if bit == "-" else int(bit.split("-")[0])
        self.bits = 0 if bit == "-" else 3 if "-" in bit else 1


class Kind:
    """A section "### TYPE name" with its table."""

    def __init__(self, type_, name):
        self.type, self.name, self.fields = type_, name, []


def cells(line):
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def kinds(text):
    """By type; 0 is the header."""
    found = {}
    current = None
    for line in text.splitlines():
        heading = re.fullmatch(r"### (\d+) (\w+)", line)
        if heading:
            current = found[int(heading[1])] = Kind(int(heading[1]), heading[2])
        elif line.startswith("#"):
            current = None
        elif current and re.match(r"\| (-|\d+(-\d+)?) \| \w+ \|", line):
            current.fields.append(Field(*cells(line)))
    return found


def table(text, heading):
    """The rows of the table that begins with that line."""
    rows = text.split(heading + "\n", 1)[1].splitlines()[1:]
    end = next((i for i, row in enumerate(rows) if not row.startswith("|")), len(rows))
    return [cells(row) for row in rows[:end]]


def blocks(text):
    """The examples: [(word, lines)] of each fenced block that has a word."""
    return [(found[1], found[2].splitlines()) for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)]


TEXT = PATH.read_text()
KINDS = kinds(TEXT)
