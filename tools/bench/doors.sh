#!/usr/bin/env bash
# What a limit adds to a request, by door: through nginx and HAProxy with tally, with their own limit and with none, and asked by RESP, HTTP and gRPC.
#
#   tools/bench/doors.sh                 9 rounds; prints medians and spread
#   tools/bench/doors.sh --json FILE     writes the figures, too
set -euo pipefail
# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

need_packages "${build_packages[@]}" "${proxy_packages[@]}"
build release tallyd tally_rls_load || die "the build failed"
exec python3 "$root/tools/bench/doors.py" --build "$root/build" "$@"
