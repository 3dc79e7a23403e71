#!/usr/bin/env bash
# Instructions that a decision costs, counted by valgrind, against tools/bench/instructions.json; exits 1 where one needs over 5 % more.
#
#   tools/bench/instructions.sh             compares
#   tools/bench/instructions.sh --update    writes the file, after a change that is meant
set -euo pipefail
# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

need_packages "${build_packages[@]}" valgrind
build release tally_path || die "the build failed"
exec python3 "$root/tools/bench/instructions.py" --build "$root/build" "$@"
