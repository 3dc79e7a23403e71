#!/usr/bin/env bash
# The gRPC door for Envoy beside RESP: decisions a second, their time, and the daemon's CPU time for each.
#
#   tools/bench/rls.sh                 5 rounds; prints medians
#   tools/bench/rls.sh --json FILE     writes the figures, too
set -euo pipefail
# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

need_packages "${build_packages[@]}" "${bench_packages[@]}"
build release tallyd tally_rls_load tally_generator || die "the build failed"
exec python3 "$root/tools/bench/rls.py" --build "$root/build" "$@"
