#!/usr/bin/env bash
# Sets up what is missing, then runs all tests.
#   scripts/test.sh [--only STAGE[,STAGE…]] [--list]
# Each stage's output is kept in target/test-logs/STAGE.log. A stage that fails does not stop the others; the exit
# code is non-zero if one failed. What cannot run here is named in a line `SKIP: …`; with CI=true such a skip is a
# failure, unless ALLOW_SKIP names the stage (e.g. ALLOW_SKIP=miri,fuzz).
# Environment: FUZZ_SECONDS (60 per fuzz target), DEBIAN13_ROOT (~/.cache/debian13-root).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$ROOT"

LOGS=$TARGET/test-logs
DEBIAN13_ROOT=${DEBIAN13_ROOT:-$HOME/.cache/debian13-root}

# name, limit in seconds, title
STAGES="
workspace 2700 unit, integration and documentation tests of all crates
features  1200 the library with tokio, the command without GStreamer
testbed   2400 the suite in a guest with udmabuf, hugepages and RDMA
miri      1200 Miri on wire, ledger and budget
fuzz      1500 each fuzz target for a bounded time
debian13  1800 the plug-in with GStreamer 1.26
aarch64   1200 the command without GStreamer built for 64-bit ARM, codec, books and pages run there
"

. "$ROOT/scripts/stages.sh"

only="" run=""
while [ $# -gt 0 ]; do
  case $1 in
    --only) only=",${2:?stage},"; shift 2 ;;
    --run) run=$2; shift 2 ;; # internal: one stage, in this process
    --list) echo "$STAGES" | sed '/^$/d'; exit ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; [ "$1" = --help ] || [ "$1" = -h ]; exit ;;
  esac
done

if [ -n "$run" ]; then
  "stage_$run"
  exit
fi

# run_stage NAME LIMIT: in a process group of its own, under a time limit, output shown and kept.
run_stage() {
  local name=$1 limit=$2 log=$LOGS/$1.log out tee pid rc=0
  exec {out}> >(exec tee "$log")
  tee=$!
  timeout -k 20 "$limit" "$0" --run "$name" >&$out 2>&1 {out}>&- </dev/null &
  pid=$!
  current=$pid
  wait "$pid" || rc=$?
  current=
  exec {out}>&-
  # tee ends when the last holder of the pipe has ended
  if ! timeout 5 tail --pid="$tee" -f /dev/null; then
    echo "a process of stage $name outlived it" | tee -a "$log"
    [ $rc != 0 ] || rc=1
  fi
  [ $rc != 124 ] || echo "stage $name: stopped after $limit s" | tee -a "$log"
  return $rc
}

# Sum of column 1 (passed) or 2 (failed) of what the stages counted.
count() { cat "$LOGS/counts" 2>/dev/null | awk -v c="$1" '{ n += $c } END { print n + 0 }'; }

current=
trap '[ -z "$current" ] || kill -TERM "$current" 2>/dev/null; exit 130' INT TERM
"$ROOT/scripts/setup.sh" --test
select_toolchain
mkdir -p "$LOGS"
rm -f "$LOGS"/*
failed="" done_stages=0
while read -r name limit title; do
  [ -n "$name" ] || continue
  if [ -n "$only" ]; then case $only in *",$name,"*) ;; *) continue ;; esac; fi
  printf '\n== %s: %s\n' "$name" "$title"
  start=$SECONDS verdict=ok
  run_stage "$name" "$limit" || { verdict=FAILED; failed="$failed $name"; echo "$name" >>"$LOGS/failed"; }
  done_stages=$((done_stages + 1))
  printf '== %s: %s in %d s (%s)\n' "$name" "$verdict" $((SECONDS - start)) "$LOGS/$name.log"
done <<<"$STAGES"
[ $done_stages -gt 0 ] || die "no such stage: ${only//,/ } (see --list)"

scripts/failures.sh
echo
grep -h '^SKIP: ' "$LOGS"/*.log | sort | uniq -c | sed 's/^ *1 //' || true
echo "test.sh: $done_stages stages in $SECONDS s, $(count 1) tests passed, $(count 2) failed," \
  "$(cat "$LOGS"/*.log | grep -c '^SKIP: ' || true) skipped${failed:+; FAILED:$failed}"
[ -z "$failed" ]
