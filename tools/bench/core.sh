#!/usr/bin/env bash
# What a decision costs in process, on random keys and on hot ones, beside a map under a mutex and beside what memory alone costs here.
#
#   tools/bench/core.sh                5 rounds of each, in random order; prints medians and spread, and which goals are reached
#   tools/bench/core.sh --help         all options
set -euo pipefail
# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

need_packages "${build_packages[@]}"
build release core_bench || { printf 'core.sh: the build failed\n' >&2; exit 2; }
exec python3 "$root/tools/bench/core.py" --build "$root/build" "$@"
