#!/usr/bin/env bash
# What ten million keys cost in memory: tallyd beside limiters in Redis, and memcached, one server at a time; what a fleet adds to
# each key; and how long tallyd takes to start.
#
#   tools/bench/memory.sh                      10,000,000 keys: a few minutes, 2 GiB at most at once
#   tools/bench/memory.sh --help               all options
set -euo pipefail
# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

need_packages "${build_packages[@]}" "${bench_packages[@]}"
build release tallyd tally_generator tally_cluster_memory || { printf 'memory.sh: the build failed\n' >&2; exit 2; }
exec python3 "$root/tools/bench/memory.py" --build "$root/build" "$@"
