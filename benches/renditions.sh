#!/usr/bin/env bash
# benches/renditions.sh [RUNS [SECONDS]]: CPU of three consumers of a 720p picture of one 1080p30 capture: scaled once by the
# publisher (pagecast serve --rendition), and by each of them. The two are measured in turn; JSON on stdout.
# Build first: cargo build --release -p pagecast-cli. Let the machine do nothing else meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-7} seconds=${2:-8}
pagecast=${PAGECAST:-target/release/pagecast}
XDG_RUNTIME_DIR=$(mktemp -d) && export XDG_RUNTIME_DIR
. benches/processes.sh
trap 'end; rm -rf "$XDG_RUNTIME_DIR"' EXIT

start() { "$@" >/dev/null 2>&1 & pids+=($!); }
# ticks: user and kernel time of all that was started
ticks() { local p t=0 a; for p in "${pids[@]}"; do read -ra a <"/proc/$p/stat"; t=$((t + a[13] + a[14])); done; echo "$t"; }
frames() { "$pagecast" info "$1" --json | sed -n 's/^ *"frames": \([0-9]*\),*$/\1/p' | head -n 1; }

# run ONCE|EACH: CPU milliseconds per captured frame
run() {
  local i name=cam0 scale="videoscale ! video/x-raw,width=1280,height=720 !" rendition=() before after from to
  if [ "$1" = once ]; then name=cam0-720p scale="" rendition=(--rendition cam0-720p=1280x720); fi
  start "$pagecast" serve cam0 "${rendition[@]}" --test 1920x1080@30:NV12
  until [ -n "$(frames "$name" 2>/dev/null)" ]; do sleep 0.1; done
  # shellcheck disable=SC2086 # a list of elements
  for i in 1 2 3; do start "$pagecast" recv "$name" $scale fakesink sync=false; done
  sleep 2
  before=$(ticks) from=$(frames cam0)
  sleep "$seconds"
  after=$(ticks) to=$(frames cam0)
  end
  awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v n=$((to - from)) 'BEGIN { printf "%.3f", t * 1000 / hz / n }'
}

once=() each=()
for _ in $(seq "$runs"); do
  once+=("$(run once)") each+=("$(run each)")
done
list() { local IFS=,; echo "$*"; }
median() { printf '%s\n' "$@" | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
echo "{\"machine\": \"$(nproc) cores, Linux $(uname -r)\", \"load\": $(cut -d' ' -f1 /proc/loadavg), \"seconds\": $seconds,"
echo " \"unit\": \"CPU ms of all processes per captured frame\","
echo " \"scaled_once\": {\"median\": $(median "${once[@]}"), \"runs\": [$(list "${once[@]}")]},"
echo " \"scaled_by_each\": {\"median\": $(median "${each[@]}"), \"runs\": [$(list "${each[@]}")]}}"
