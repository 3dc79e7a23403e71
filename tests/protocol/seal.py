"""Sealed datagrams, as docs/protocol.md has them, by libsodium."""
import ctypes
import ctypes.util
import os

from hashes import fingerprint_of_seal_key
from wire import MOST, Refused

MAGIC, VERSION = b"Ts", 1
AROUND, NONCE_AT, CONTENT_AT = 47, 7, 31
sodium = ctypes.CDLL(ctypes.util.find_library("sodium") or "libsodium.so.23")
if sodium.sodium_init() < 0:
    raise OSError("libsodium cannot be used")


def seal(content, key, nonce=None, version=VERSION):
    nonce = nonce or os.urandom(24)
    start = MAGIC + bytes([version]) + fingerprint_of_seal_key(key).to_bytes(4, "little")
    out = ctypes.create_string_buffer(len(content) + 16)
    sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(out, None, content, ctypes.c_ulonglong(len(content)), start,
                                                      ctypes.c_ulonglong(len(start)), None, nonce, key)
    return start + nonce + out.raw


def unseal(data, keys):
    """keys: all of the file."""
    if len(data) > MOST:
        raise Refused("too_long")
    if data[:2] == b"Ty":
        raise Refused("unsealed")
    if len(data) < AROUND:
        raise Refused("too_short")
    if data[:2] != MAGIC:
        raise Refused("bad_magic")
    if data[2] != VERSION:
        raise Refused("version")
    fingerprint = int.from_bytes(data[3:NONCE_AT], "little")
    key = next((key for key in keys if fingerprint_of_seal_key(key) == fingerprint), None)
    if key is None:
        raise Refused("unknown_key")
    out = ctypes.create_string_buffer(max(1, len(data) - AROUND))
    if sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(out, None, None, data[CONTENT_AT:], ctypes.c_ulonglong(len(data) - CONTENT_AT),
                                                         data[:NONCE_AT], ctypes.c_ulonglong(NONCE_AT), data[NONCE_AT:CONTENT_AT], key):
        raise Refused("forged")
    return out.raw[:len(data) - AROUND]


def read_secret(text):
    """The lines of a secret file: word -> bytes."""
    words = [line.split("#")[0].split() for line in text.splitlines()]
    return {line[0]: bytes.fromhex(line[1]) for line in words if line}
