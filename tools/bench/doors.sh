#!/usr/bin/env bash
# What a limit adds to a request through nginx and HAProxy: tally by Lua, their own limit, and none.
#
#   tools/bench/doors.sh                 9 rounds; prints medians and spread
#   tools/bench/doors.sh --json FILE     writes the figures, too
set -euo pipefail
# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

need_packages "${build_packages[@]}" "${proxy_packages[@]}"
build release tallyd || die "the build failed"
exec python3 "$root/tools/bench/doors.py" --build "$root/build" "$@"
