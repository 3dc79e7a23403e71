#!/usr/bin/env bash
# CL.THROTTLE on tallyd's Unix socket beside Redis (INCR, and GCRA in Lua) on the same machine, in turns.
#
#   tools/bench/run.sh                 5 rounds; prints medians, ratios and spread, writes out/bench-socket.json
#   tools/bench/run.sh --help          all options
set -euo pipefail
# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

need_packages "${build_packages[@]}" "${demo_packages[@]}"
build release tallyd tally_generator || die "the build failed"
exec python3 "$root/tools/bench/bench.py" --build "$root/build" --out "$root/out/bench-socket.json" "$@"
