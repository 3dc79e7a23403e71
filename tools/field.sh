#!/usr/bin/env bash
# What each failure costs: installs what is missing (Debian 12), builds an optimised tallyd, then kills, hangs and restarts real
# tallyd processes under load on loopback, and prints what was promised beside what was measured. Leaves no process behind.
#
#   tools/field.sh                       all cases, 20 deaths of an owner
#   tools/field.sh failover --runs 100   one case, as often as the documented figures
#   tools/field.sh --json out/field.json
#   tools/field.sh --help                cases and options
set -euo pipefail
# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_packages "${build_packages[@]}"
say "building an optimised tallyd in ${root##*/}/build (with $jobs job(s); quick when nothing changed)"
started=$SECONDS
build release tallyd tally tally_load || die "the build failed"
say "built in $((SECONDS - started)) s"
exec python3 "$root/tools/field/field.py" --build "$root/build" "$@"
