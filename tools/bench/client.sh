#!/usr/bin/env bash
# Decisions by the client library in an application's process, beside a question to the daemon for each.
#
#   tools/bench/client.sh                 5 rounds; prints medians and spread
#   tools/bench/client.sh --json FILE     writes the figures, too
set -euo pipefail
# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

need_packages "${build_packages[@]}" "${bench_packages[@]}"
build release tallyd tally_client_bench tally_generator || die "the build failed"
exec python3 "$root/tools/bench/client.py" --build "$root/build" "$@"
