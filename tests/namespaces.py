"""For tests that need a network of their own: where there can be none they say so, and ctest takes them for skipped."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tools" / "field"))
from network import Network, Unavailable  # noqa: E402

SKIPPED = 77


def need_network(ipv6=False):
    try:
        with Network(["a"]) as probe:
            if ipv6 and not probe.has_ipv6:
                raise Unavailable("no IPv6 in this kernel")
    except Unavailable as problem:
        print(f"skipped: {problem}")
        sys.exit(SKIPPED)
