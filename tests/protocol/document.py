"""docs/protocol.md as data: the tables of fields, the test vectors, the examples."""
import pathlib
import re

PATH = pathlib.Path(__file__).resolve().parent.parent.parent / "docs" / "protocol.md"


class Field:
    """One row of a table of fields. `each`: of each entry of a list, not of all."""

    def __init__(self, each, bit, name, kind, meaning):
        self.each, self.name, self.kind, self.meaning = each, name, kind, meaning
        self.bit = None if bit == "-" else int(bit.split("-")[0])
        self.bits = 0 if bit == "-" else 3 if "-" in bit else 1


class Kind:
    """A section "### TYPE name" with its table, or its two tables where it comes in lists."""

    def __init__(self, type_, name):
        self.type, self.name, self.fields = type_, name, []

    @property
    def comes_in_lists(self):
        return any(field.each for field in self.fields)

    def part(self, each):
        """The fields of one body."""
        return [field for field in self.fields if field.each == each]


def cells(line):
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def kinds(text):
    """By type; 0 is the header."""
    found = {}
    current = None
    each = False
    for line in text.splitlines():
        heading = re.fullmatch(r"### (\d+) (\w+)", line)
        if heading:
            current = found[int(heading[1])] = Kind(int(heading[1]), heading[2])
        elif line.startswith("#"):
            current = None
        elif re.match(r"\| (bit|of all|of each) \|", line):
            each = cells(line)[0] == "of each"
        elif current and re.match(r"\| (-|\d+(-\d+)?) \| \w+ \|", line):
            current.fields.append(Field(each, *cells(line)))
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
