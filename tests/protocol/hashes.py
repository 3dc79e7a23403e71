"""The hashes of docs/protocol.md, "Names and hashes"."""
import hashlib

MASK = (1 << 64) - 1
PUBLIC_ID = b"tallyd-public-id"


def rotl(x, n):
    return (x << n | x >> (64 - n)) & MASK


def siphash(data, key, wide=False):
    """SipHash-2-4 as Aumasson and Bernstein have it; 16 bytes where wide, else 8."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d ^ (0xee if wide else 0), k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573]

    def rounds(n):
        for _ in range(n):
            v[0] = (v[0] + v[1]) & MASK
            v[1] = rotl(v[1], 13) ^ v[0]
            v[0] = rotl(v[0], 32)
            v[2] = (v[2] + v[3]) & MASK
            v[3] = rotl(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & MASK
            v[3] = rotl(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & MASK
            v[1] = rotl(v[1], 17) ^ v[2]
            v[2] = rotl(v[2], 32)

    def word():
        return (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xff])
    for at in range(0, len(padded), 8):
        block = int.from_bytes(padded[at:at + 8], "little")
        v[3] ^= block
        rounds(2)
        v[0] ^= block
    v[2] ^= 0xee if wide else 0xff
    rounds(4)
    low = word()
    if not wide:
        return low
    v[1] ^= 0xdd
    rounds(4)
    return low + word()


def keyed_hash(data, key):
    return int.from_bytes(siphash(data, key), "little")


def node_id(entry, key):
    return keyed_hash(entry.encode(), key)


def key_id(rule, key, fleet):
    return siphash(key.encode(), siphash(rule.encode(), fleet, wide=True), wide=True)[:12]


def roster_hash(size, entries, aggregators, key):
    def word(n):
        return n.to_bytes(8, "little")
    names = [name.encode() for name in sorted(entries) + sorted(aggregators)]
    return keyed_hash(word(size) + b"".join(word(len(name)) + name for name in names), key)


def mix(x):
    x = (x ^ x >> 33) * 0xff51afd7ed558ccd & MASK
    x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53 & MASK
    return x ^ x >> 33


def group(key, owners, fleet):
    """Entries, the natural owner first."""
    word = int.from_bytes(key[:8], "little")
    return sorted(sorted(owners), key=lambda entry: mix(word ^ node_id(entry, fleet)), reverse=True)[:3]


def fingerprint_of_rules(rules):
    """rules: (name, algorithm, limit, window ns, emission ns, ppm, unbounded), as configured."""
    text = "".join("|".join(str(part) for part in rule) + "\n" for rule in rules)
    return keyed_hash(text.encode(), PUBLIC_ID)


def fingerprint_of_seal_key(key):
    return int.from_bytes(hashlib.blake2b(b"tallyd fingerprint of a seal key", digest_size=16, key=key).digest()[:4], "little")


# --- XXH3_64bits of up to 128 bytes, without a seed (xxHash 0.8) ---

SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364")


def word_at(data, at, size=8):
    return int.from_bytes(data[at:at + size], "little")


def fold(a, b):
    return (a * b & MASK) ^ (a * b >> 64)


def avalanche(h, shift, factor):
    h = (h ^ h >> shift) * factor & MASK
    return h ^ h >> 32


def xxh3(data):
    n = len(data)
    if n <= 3:
        mixed = (data[0] << 16 | data[n >> 1] << 24 | data[-1] | n << 8) if n else 0
        h = mixed ^ ((word_at(SECRET, 0, 4) ^ word_at(SECRET, 4, 4)) if n else (word_at(SECRET, 56) ^ word_at(SECRET, 64)))
        h = (h ^ h >> 33) * 0xC2B2AE3D27D4EB4F & MASK
        return avalanche(h, 29, 0x165667B19E3779F9)
    if n <= 8:
        h = (word_at(data, n - 4, 4) + (word_at(data, 0, 4) << 32)) ^ word_at(SECRET, 8) ^ word_at(SECRET, 16)
        h = (h ^ rotl(h, 49) ^ rotl(h, 24)) * 0x9FB21C651E98DF25 & MASK
        h = (h ^ (h >> 35) + n) * 0x9FB21C651E98DF25 & MASK
        return h ^ h >> 28
    if n <= 16:
        low = word_at(data, 0) ^ word_at(SECRET, 24) ^ word_at(SECRET, 32)
        high = word_at(data, n - 8) ^ word_at(SECRET, 40) ^ word_at(SECRET, 48)
        sum_ = n + int.from_bytes(low.to_bytes(8, "little"), "big") + high + fold(low, high)
        return avalanche(sum_ & MASK, 37, 0x165667919E3779F9)
    sum_ = n * 0x9E3779B185EBCA87
    for i in range(min(4, (n + 31) // 32)):
        for at, secret in ((16 * i, 32 * i), (n - 16 * (i + 1), 32 * i + 16)):
            sum_ += fold(word_at(data, at) ^ word_at(SECRET, secret), word_at(data, at + 8) ^ word_at(SECRET, secret + 8))
    return avalanche(sum_ & MASK, 37, 0x165667919E3779F9)


def rule_number(name):
    return (xxh3(name.encode()) & 0xffffffff).to_bytes(4, "little")
