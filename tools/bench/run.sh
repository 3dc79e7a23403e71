#!/usr/bin/env bash
# The whole benchmark, in turns on this machine, and one list of all goals at the end, reached or not.
#
#   tools/bench/run.sh                       everything; figures go to out/bench-*.json
#   tools/bench/run.sh --only socket,beside  some of: socket http core cluster memory beside client doors rls books
#   tools/bench/run.sh --only socket -- --parts one --rounds 9    options for each of them: here bench.py's
#   tools/bench/run.sh --help
#
# A part of which nothing is in this folder is left out. Exits 0 when all ran, 2 when something could not run.
set -euo pipefail
# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

parts=(socket http core cluster memory beside client doors rls books)
only=("${parts[@]}")
while (($#)); do
  case $1 in
    --only)
      IFS=, read -ra only <<<"${2:?--only needs a list}"
      shift 2
      ;;
    --help | -h)
      sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --)
      shift
      break
      ;;
    *) die "unknown option $1; --help has them" ;;
  esac
done
for part in "${only[@]}"; do
  [[ " ${parts[*]} " == *" $part "* ]] || die "there is no part $part; there are: ${parts[*]}"
done

need_packages "${build_packages[@]}" "${bench_packages[@]}"
here=$root/tools/bench
out=$root/out
failed=() written=()

# run_part PART FILE COMMAND...: shows what it prints; its figures go to FILE.
run_part() {
  local part=$1 file=$2
  shift 2
  say "$part"
  rm -f "$file"  # or an older run's goals would be taken for this one's
  if "$@"; then
    written+=("$file")
  else
    failed+=("$part")
  fi
}

mkdir -p "$out"
build release tallyd tally_generator tally_bare_loop || die "the build failed"
for part in "${only[@]}"; do
  file=$out/bench-$part.json
  case $part in
    socket) run_part socket "$file" python3 "$here/bench.py" --build "$root/build" --json "$file" "$@" ;;
    beside) run_part beside "$file" python3 "$here/beside.py" --build "$root/build" --json "$file" "$@" ;;
    *) # brings its own build
      if [[ -e $here/$part.sh ]]; then
        run_part "$part" "$file" "$here/$part.sh" --json "$file" "$@"
      elif [[ -e $here/$part.py ]]; then
        run_part "$part" "$file" python3 "$here/$part.py" --json "$file" "$@"
      fi
      ;;
  esac
done

python3 "$here/figures.py" "${written[@]}" || failed+=("the list of goals")
((${#failed[@]} == 0)) || { printf 'could not run: %s\n' "${failed[*]}" >&2; exit 2; }
