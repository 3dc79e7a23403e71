# shellcheck shell=bash disable=SC2034,SC2015,SC2016
# Shared by demo.sh and test.sh (sourced, bash): installs what a Debian 12 lacks, builds a preset.
#
# Nothing here changes a system that has all it needs. Installing never starts a service: for the time of apt-get a
# policy-rc.d says no (where there is none already), and what was new is not enabled for the next boot either.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# What the sources need to compile, the tests and benchmarks included: one build directory serves all.
# prometheus-cpp's CMake configuration looks for civetweb, zlib and curl whatever part of it is used.
build_packages=(g++ cmake ninja-build pkg-config libasio-dev nlohmann-json3-dev prometheus-cpp-dev libcivetweb-dev
  zlib1g-dev libcurl4-openssl-dev libcxxopts-dev doctest-dev libxxhash-dev libsodium-dev libc-ares-dev libhiredis-dev liblua5.1-0-dev
  libyaml-cpp-dev libbenchmark-dev libgrpc++-dev libprotobuf-dev protobuf-compiler-grpc python3)
demo_packages=(redis-server redis-tools)
bench_packages=("${demo_packages[@]}" memcached nginx)
# The proxies that conf/ has files for; lua-cjson is the stand-in for Kong's.
proxy_packages=(nginx libnginx-mod-http-lua lua-cjson haproxy)
test_packages=("${bench_packages[@]}" "${proxy_packages[@]}" python3-redis python3-yaml prometheus curl)

say() { printf '== %s\n' "$*"; }
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# Which of the packages named are not installed.
missing_packages() {
  local have
  have=$(dpkg-query -W -f='${db:Status-Abbrev}${Package}\n' "$@" 2>/dev/null | sed -n 's/^ii *//p') || true
  local package
  for package in "$@"; do
    grep -qxF -- "$package" <<<"$have" || printf '%s\n' "$package"
  done
}

# Runs as root: $1 a log file, then packages. Kept in one piece so that a single sudo does it.
install_script='
set -u
log=$1; shift
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf "#!/bin/sh\nexit 101\n" >$policy && chmod 755 $policy
  trap "rm -f $policy" EXIT
  trap "exit 130" INT TERM HUP
fi
known=$(ls /lib/systemd/system 2>/dev/null)
apt="apt-get -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3"
$apt -o APT::Update::Error-Mode=any update >"$log" 2>&1 || echo "not every package list could be read" >>"$log.update"
$apt install -y --no-install-recommends "$@" >>"$log" 2>&1 || exit 1
for service in redis-server memcached prometheus nginx haproxy; do
  if [ -e /lib/systemd/system/$service.service ] && ! printf "%s\n" "$known" | grep -qxF $service.service; then
    update-rc.d $service disable >>"$log" 2>&1 || true
  fi
done
exit 0
'

# Installs the packages named, where any is missing.
need_packages() {
  command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
    die "this script installs with apt-get (Debian 12). Elsewhere install the like of: $*; then
  cmake --preset release && cmake --build --preset release"
  local missing
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]})) || return 0
  local as_root=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || die "packages are missing and this is neither root nor is there a sudo. As root:
  apt-get install ${missing[*]}"
    as_root=(sudo)
    [[ -t 0 ]] || as_root+=(-n)
    "${as_root[@]}" true || die "packages are missing and sudo did not let us in. As root:
  apt-get install ${missing[*]}"
  fi
  say "installing with apt-get: ${missing[*]}"
  local scratch status=0
  scratch=$(mktemp -d)
  "${as_root[@]}" bash -c "$install_script" install "$scratch/log" "${missing[@]}" || status=$?
  if ((status)); then
    tail -n 15 "$scratch/log" >&2 || true
    local why="apt-get could not install: ${missing[*]}"
    [[ -e $scratch/log.update ]] && why="apt-get could not reach its package servers (no network?) and these are missing: ${missing[*]}"
    rm -rf "$scratch" 2>/dev/null || true
    die "$why"
  fi
  rm -rf "$scratch" 2>/dev/null || true
}

# node and npm may come from anywhere; Debian's where there are none.
need_node() {
  command -v node >/dev/null && command -v npm >/dev/null || need_packages nodejs npm
}

# As many compilers as there are cores, and as fit into the memory at 1.5 GB each.
jobs_for_this_machine() {
  local cores kib fit
  cores=$(nproc)
  kib=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo 2>/dev/null || true)
  fit=$((${kib:-1572864} / 1572864))
  ((fit < 1)) && fit=1
  echo $((cores < fit ? cores : fit))
}
jobs=${TALLY_JOBS:-$(jobs_for_this_machine)}

build_dir() {  # of a preset
  [[ $1 == release ]] && echo "$root/build" || echo "$root/build-$1"
}

# build PRESET [TARGET...]: configures and builds; quiet where it goes well. Two at once take turns.
build() {
  local preset=$1 dir lock targets=()
  shift
  (($#)) && targets=(--target "$@")
  dir=$(build_dir "$preset")
  mkdir -p "$dir"
  exec {lock}>"$dir/.lock"
  flock "$lock"
  local log=$dir/last-build.log
  if ! (cd "$root" && cmake --preset "$preset" >"$log" 2>&1); then
    cat "$log" >&2
    exec {lock}>&-
    return 1
  fi
  # Without a terminal ninja prints a line for each step: keep them in the log, show them where it fails.
  if [[ -t 1 ]]; then
    (cd "$root" && cmake --build --preset "$preset" -j "$jobs" "${targets[@]}") || { exec {lock}>&-; return 1; }
  elif ! (cd "$root" && cmake --build --preset "$preset" -j "$jobs" "${targets[@]}" >>"$log" 2>&1); then
    grep -v '^\[[0-9]*/[0-9]*\] ' "$log" | tail -n 200 >&2
    exec {lock}>&-
    return 1
  fi
  exec {lock}>&-
}
