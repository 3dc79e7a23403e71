#!/usr/bin/env bash
# All tests, through ctest: installs what is missing (Debian 12), then for each stage builds and runs.
#
#   tools/test.sh                      all stages: release, asan (with ubsan), tsan
#   tools/test.sh release              only these
#   tools/test.sh release -R slots     what follows a stage and begins with - goes to ctest, with its argument
#
# The sanitizers' stages run with fewer seeds (TALLY_CLUSTERS: random clusters simulated). Exits 0 when every test of every stage passed.
set -euo pipefail
# shellcheck source=tools/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

stages=()
ctest_options=()
while (($#)); do
  case $1 in
    release | debug | asan | tsan) stages+=("$1") ;;
    -h | --help)
      sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    -*)
      ctest_options=("$@")
      break
      ;;
    *) die "unknown stage '$1' (release, debug, asan, tsan)" ;;
  esac
  shift
done
((${#stages[@]})) || stages=(release asan tsan)

need_packages "${build_packages[@]}" "${test_packages[@]}"
need_node

export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_stack_use_after_return=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1:second_deadlock_stack=1}

summary=()
failed=0
for stage in "${stages[@]}"; do
  dir=$(build_dir "$stage")
  say "$stage: building with $jobs job(s)"
  started=$SECONDS
  if ! build "$stage"; then
    failed=1
    summary+=("$stage: the build FAILED after $((SECONDS - started)) s")
    continue
  fi
  built=$SECONDS
  clusters=2000
  [[ $stage == asan ]] && clusters=60
  [[ $stage == tsan ]] && clusters=20  # of one thread each: what tsan looks for is in other tests
  log=$dir/last-test.log
  say "$stage: built in $((built - started)) s; testing"
  status=0
  (cd "$dir" && TALLY_CLUSTERS=${TALLY_CLUSTERS:-$clusters} ctest -j "$jobs" --output-on-failure --no-tests=error \
    --timeout 900 "${ctest_options[@]}") 2>&1 | tee "$log" || status=$?
  ((status == 0)) || failed=1
  summary+=("$stage: built in $((built - started)) s, tested in $((SECONDS - built)) s"
    "$(grep -E '^[0-9]+% tests passed|^No tests were found' "$log" || echo 'ctest gave no summary')")
done

echo
say "all stages, $SECONDS s"
printf '%s\n' "${summary[@]}"
exit $failed
