#!/usr/bin/env bash
# CL.THROTTLE on tallyd's Unix socket beside the least loop that does it, limiters in Redis, and memcached, on the same machine, in turns.
#
#   tools/bench/run.sh                 5 rounds; prints medians, ratios and spread, writes out/bench-socket.json
#   tools/bench/run.sh --help          all options
set -euo pipefail
# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

need_packages "${build_packages[@]}" "${bench_packages[@]}"
build release tallyd tally_generator tally_bare_loop || die "the build failed"
exec python3 "$root/tools/bench/bench.py" --build "$root/build" --out "$root/out/bench-socket.json" "$@"
