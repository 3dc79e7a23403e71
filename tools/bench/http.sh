#!/usr/bin/env bash
# GET /v1/auth by HTTP on kept connections, beside nginx that answers "return 204": requests a second of the server's processor time.
#
#   tools/bench/http.sh                 5 rounds of 2 s, in turns; prints medians and spread
#   tools/bench/http.sh --json FILE     writes the figures, too
set -euo pipefail
# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

need_packages "${build_packages[@]}" "${bench_packages[@]}"
build release tallyd tally_generator || die "the build failed"
exec python3 "$root/tools/bench/http_auth.py" --build "$root/build" "$@"
