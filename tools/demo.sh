#!/usr/bin/env bash
# The demonstration: installs what is missing (Debian 12), builds an optimised tallyd, then lets fleets of real tallyd
# processes share limits over loopback and checks what they promise. Starts no system service, leaves no process behind.
#
#   tools/demo.sh                      the eight cases
#   tools/demo.sh --cases 1,5          some of them
#   tools/demo.sh --repeat 200 --cases 1,5,6 --seed 7
#   tools/demo.sh --help               all options
set -euo pipefail
# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need_packages "${build_packages[@]}" "${demo_packages[@]}"
say "building an optimised tallyd in ${root##*/}/build (with $jobs job(s); quick when nothing changed)"
started=$SECONDS
build release tallyd tally tally_load tally_relay || die "the build failed"
say "built in $((SECONDS - started)) s"
exec python3 "$root/tools/demo/demo.py" --build "$root/build" "$@"
