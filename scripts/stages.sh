# The stages of scripts/test.sh; sourced by it.

# skip STAGE REASON: ends the stage: well, or badly in CI.
skip() {
  echo "SKIP: $1: $2"
  in_ci || exit 0
  case ",${ALLOW_SKIP:-}," in *",$1,"*) exit 0 ;; esac
  echo "a skip of stage $1 is a failure in CI (ALLOW_SKIP=$1 allows it)"
  exit 1
}

# at_least N FILE: did at least N tests pass, according to the closing lines of libtest in FILE? Lines with filtered
# tests are from children that tests started, unless the last line is one. The sum goes to the final line too.
at_least() {
  local passed failed
  read -r passed failed < <(awk '
    /^test result:/ { last = $4 " " $6; if (/; 0 filtered out/) { p += $4; f += $6; sum = 1 } }
    END { print sum ? p + 0 " " f + 0 : last }' "$2")
  echo "${passed:-0} ${failed:-0}" >>"$LOGS/counts"
  [ "${passed:-0}" -ge "$1" ] || { echo "only ${passed:-0} tests passed, expected at least $1"; return 1; }
}

has_member() { cargo metadata --no-deps --format-version 1 --offline 2>/dev/null | grep -q "\"name\":\"$1\",\"version\""; }

# cargo_test NAME ARGUMENTS…: shows and counts; at least one test must pass.
cargo_test() {
  local log=$LOGS/$1.part rc=0
  shift
  cargo test --no-fail-fast "$@" 2>&1 | tee "$log" || rc=1
  at_least 1 "$log" || rc=1
  rm -f "$log"
  return $rc
}

stage_workspace() { cargo_test workspace --workspace; }

stage_features() {
  local rc=0
  cargo_test features -p pagecast --features tokio || rc=1
  cargo_test features -p pagecast-cli --no-default-features || rc=1
  # the other filler of the function table
  if rdma_sys_builds; then
    cargo_test features -p pagecast-verbs --features rdma-sys || rc=1
  elif [ $rc = 0 ]; then
    skip features "all but rdma-sys passed, which needs libclang 14 or 15"
  fi
  return $rc
}

# test_binary PACKAGE TARGET[,OPTION…] [RUNNER…]: builds it (with RUNNER before cargo) and prints its path.
test_binary() {
  local package=$1 target=$2
  shift 2
  # shellcheck disable=SC2086 # a list of words
  "$@" cargo test --no-run --message-format=json-render-diagnostics -p "$package" ${target//,/ } </dev/null |
    grep '"profile":{[^}]*"test":true' | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

# in_guest MIN SECONDS OPTIONS BINARY…: runs a test binary there; at least MIN tests must pass, and none may skip.
# Standard output alone is counted: libtest writes its last line in parts, and what a process said on standard error
# may be shown between them.
in_guest() {
  local min=$1 seconds=$2 options=$3 log=$LOGS/guest.part rc=0
  shift 3
  # shellcheck disable=SC2086 # a list of words
  testbed/run -t "$seconds" $options -- "$@" </dev/null | tee "$log" || { echo "$* failed in the guest"; rc=1; }
  at_least "$min" "$log" || rc=1
  ! grep '^SKIP: ' "$log" || { echo "a skip in the guest is a failure"; rc=1; }
  rm -f "$log"
  return $rc
}

stage_testbed() {
  local package target min seconds options filters binary rc=0 ran=0
  can_be_root || skip testbed "it needs root (file server, mount namespace)"
  while read -r package target min seconds options filters; do
    case $package in '' | '#'*) continue ;; esac
    binary=$(test_binary "$package" "$target")
    [ -x "$binary" ] || { echo "$package $target: no such test binary"; rc=1; continue; }
    [ "$options" != - ] || options=
    echo "-- in the guest: $package $target $filters"
    # shellcheck disable=SC2086 # a list of words
    in_guest "$min" "$seconds" "${options//,/ }" "$binary" $filters || rc=1
    ran=$((ran + 1))
  done <testbed/suite
  [ $ran -gt 0 ] || echo "the suite is empty"
  return $rc
}

stage_miri() {
  local nightly t rc=0 targets=() log=$LOGS/miri.part
  nightly=$(nightly_toolchain miri rust-src) || skip miri "Miri is not available (the reason stands above)"
  # what reads a peer's bytes and keeps the books; the rest without I/O would take minutes here
  for t in ipc/tests/{wire,ledger,budget}*.rs; do
    [ ! -e "$t" ] || targets+=(--test "$(basename "$t" .rs)")
  done
  # isolation forbids what proptest does at its start: find out the current folder
  MIRIFLAGS=-Zmiri-disable-isolation cargo "+$nightly" miri test --target-dir "$TARGET/miri" -p pagecast-ipc "${targets[@]}" |
    tee "$log" || rc=1
  at_least "${#targets[@]}" "$log" || rc=1
  rm -f "$log"
  return $rc
}

stage_fuzz() {
  local nightly t seeds rc=0 n=0 seconds=${FUZZ_SECONDS:-60} seed=$RANDOM log=$LOGS/fuzz.part
  # a change must not fail for what another run's luck would have found: look further with FUZZ_SEED=N
  ! in_ci || seed=1
  seed=${FUZZ_SEED:-$seed}
  [ -d fuzz ] || return 0
  nightly=$(nightly_toolchain rust-src) || skip fuzz "no nightly toolchain (the reason stands above)"
  cargo "+$nightly" fuzz --version >/dev/null || skip fuzz "cargo-fuzz is not installed"
  cargo "+$nightly" fuzz build
  for t in $(cargo "+$nightly" fuzz list); do
    echo "-- fuzz target $t for $seconds s"
    mkdir -p "fuzz/corpus/$t"
    seeds=fuzz/seeds/$t
    [ -d "$seeds" ] || seeds=
    # GLib keeps some memory for the life of the process
    case $t in gst_*) export ASAN_OPTIONS=detect_leaks=0 ;; *) unset ASAN_OPTIONS ;; esac
    # shellcheck disable=SC2086 # no seeds is no word
    cargo "+$nightly" fuzz run "$t" "fuzz/corpus/$t" $seeds -- -seed="$seed" -max_total_time="$seconds" -rss_limit_mb=2048 -malloc_limit_mb=64 \
      -timeout=10 -print_final_stats=1 2>&1 | fuzz_summary >"$log" || rc=1
    cat "$log"
    # a target that hardly ran proves nothing
    awk '/number_of_executed_units/ { n = $2 } END { exit n < 1000 }' "$log" || { echo "fuzz target $t failed"; rc=1; }
    n=$((n + 1))
  done
  rm -f "$log"
  echo "fuzz: $n targets, $seconds s each"
  [ $n -gt 0 ] && return $rc
}

# libFuzzer's progress reports to a readable length
fuzz_summary() { sed '/###### Recommended dictionary/,/###### End of/d;/^#[0-9]*\t\(NEW\|REDUCE\|pulse\|RELOAD\)/d;/NEW_FUNC/d'; }

# What cannot be run under user-mode emulation: tests that start themselves again (exec needs the emulator), that look
# at page tables, that panic on purpose, or that move a lot (48 MiB over TCP take minutes).
ARM_CANNOT="child:: controls:: address_space descriptors_run_out file_size_is_limited nothing_leaks other_users
  pages_are_zero second_mapping subscribers_cannot_write pages_are_given_back_when"

stage_aarch64() {
  local target=aarch64-unknown-linux-gnu log=$LOGS/aarch64.part rc=0 page t tests=() skips=()
  command -v aarch64-linux-gnu-gcc >/dev/null && command -v qemu-aarch64 >/dev/null || skip aarch64 "no cross compiler or emulator"
  rustup target add "$target" || skip aarch64 "the target $target cannot be installed"
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
  cargo build --target "$target" -p pagecast-cli --no-default-features || rc=1
  for t in ipc/tests/*.rs; do tests+=(--test "$(basename "$t" .rs)"); done
  for t in $ARM_CANNOT; do skips+=(--skip "$t"); done
  export PROPTEST_CASES=32
  # the emulator tells programs the page size that it is told
  for page in 4096 65536; do
    echo "-- pages of $page bytes; left out: $ARM_CANNOT"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -p $page -L /usr/aarch64-linux-gnu"
    cargo test --no-fail-fast --target "$target" -p pagecast-ipc "${tests[@]}" | tee "$log" || rc=1
    at_least 50 "$log" || rc=1
    for t in pagecast-allocators pagecast-remote; do
      cargo test --no-fail-fast --target "$target" -p "$t" --test conformance -- "${skips[@]}" | tee "$log" || rc=1
      at_least 30 "$log" || rc=1
    done
    cargo test --target "$target" -p pagecast-allocators --lib page | tee "$log" || rc=1
    at_least 2 "$log" || rc=1
  done
  rm -f "$log"
  return $rc
}

# Test targets of the plug-in, and how many tests must run there at least.
DEBIAN13_IN_GUEST="src_dma_buf 9
src_dma_drm 5
sink_dma_buf 5"

stage_debian13() {
  local rc=0 target min binary in_root
  [ -f gst/Cargo.toml ] && has_member gst-plugin-pagecast || return 0
  can_be_root || skip debian13 "it needs root (debootstrap, chroot)"
  as_root testbed/debian13-root make "$DEBIAN13_ROOT" || skip debian13 "the Debian 13 root cannot be made"
  in_root=(as_root testbed/debian13-root run "$DEBIAN13_ROOT" -- env CARGO_TARGET_DIR="$TARGET/debian13")
  "${in_root[@]}" cargo test -p gst-plugin-pagecast --features v1_26 --no-fail-fast 2>&1 |
    tee "$LOGS/debian13.part" || rc=1
  at_least 1 "$LOGS/debian13.part" || rc=1
  rm -f "$LOGS/debian13.part"
  # What needs dma-bufs: in the guest, and there inside that root.
  while read -r target min; do
    binary=$(test_binary gst-plugin-pagecast "--test=$target,--features=v1_26" "${in_root[@]}")
    [ -x "$binary" ] || { echo "$target: no such test binary"; rc=1; continue; }
    echo "-- in the guest, in the Debian 13 root: $target"
    in_guest "$min" 180 "" env D13_SHARE=/tmp testbed/debian13-root run "$DEBIAN13_ROOT" -- "$binary" || rc=1
  done <<<"$DEBIAN13_IN_GUEST"
  # A program of this system with that one's Mesa, whose software device imports dma-bufs.
  cargo build -p pagecast-examples --example gpu || rc=1
  binary=$(test_binary pagecast-examples --test=gpu)
  echo "-- in the guest, in the Debian 13 root: the example gpu"
  in_guest 4 180 "" env D13_SHARE=/tmp testbed/debian13-root run "$DEBIAN13_ROOT" -- "$binary" || rc=1
  # not root's, where sudo made it
  [ "$(id -u)" = 0 ] || as_root chown -R "$(id -u)" "$TARGET/debian13"
  return $rc
}
