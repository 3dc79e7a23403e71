"""Datagrams as the examples of docs/protocol.md show them: the bytes, what they are, and their value."""
from seal import CONTENT_AT, NONCE_AT, unseal
from wire import decode

ROW = 16  # bytes in a line


class Lines:
    def __init__(self):
        self.lines, self._at = [], 0

    def found(self, reader, label, value=""):
        self.add(reader.data[self._at:reader.at], label, value)
        self._at = reader.at

    def add(self, data, label, value=""):
        rows = [data[i:i + ROW].hex(" ") for i in range(0, len(data), ROW)] or [""]
        self.lines.append(f"{rows[0]:<{3 * ROW}}{label:<16}{value}".rstrip())
        self.lines += rows[1:]


def explain(data, key):
    lines = Lines()
    decode(data, key, lines)
    return lines.lines


def explain_sealed(data, seal_key):
    """Only what is around; what unseal() gives is a plain datagram."""
    lines = Lines()
    lines.add(data[:2], "magic", "Ts")
    lines.add(data[2:3], "version", str(data[2]))
    lines.add(data[3:NONCE_AT], "fingerprint", f"{int.from_bytes(data[3:NONCE_AT], 'little'):08x}")
    lines.add(data[NONCE_AT:CONTENT_AT], "nonce")
    lines.add(data[CONTENT_AT:-16], "ciphertext", f"of {len(unseal(data, [seal_key]))} bytes")
    lines.add(data[-16:], "tag")
    return lines.lines


def bytes_of(lines):
    return bytes.fromhex("".join(line[:3 * ROW] for line in lines))
