#!/usr/bin/env bash
# What the cluster thread costs: entries a second and core, bytes an entry, ticks of large tables, an owner of hot keys. Builds a release,
# runs each case several times, prints medians with their spread and which goals are reached.
#
#   tools/bench/cluster.sh                       all cases, five rounds: some twenty minutes, 16 GB (tables of 10 million keys)
#   tools/bench/cluster.sh --keys-max 1000000    no table larger than that: some ten minutes, 4 GB
#   tools/bench/cluster.sh --json FILE           and writes all figures there
set -euo pipefail
# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

need_packages "${build_packages[@]}"
build release cluster_bench || die "the build failed"
exec python3 "$root/tools/bench/cluster.py" --build "$root/build" "$@"
