#!/usr/bin/env bash
# Installs what is missing to build, demonstrate or test Pagecast on Debian 12 or newer. Quick when nothing is missing.
#   scripts/setup.sh [--demo]   Rust toolchain check, GStreamer with its headers
#   scripts/setup.sh --test     also what all tests and CI need: codecs, the testbed, cargo-deny, cargo-fuzz
set -euo pipefail
. "$(dirname "$0")/lib.sh"

packages="gcc g++ libc6-dev pkg-config gstreamer1.0-tools libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
  gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
test_packages="gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-x ffmpeg git
  qemu-system-x86 qemu-system-common busybox-static kmod util-linux xz-utils zstd python3-minimal iproute2
  udev rdma-core ibverbs-utils perftest rdmacm-utils libibverbs-dev librdmacm-dev v4l-utils libdrm-dev debootstrap
  libegl1 libgbm1 libgl1-mesa-dri gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user iperf3 make"

tests=0
case ${1:---demo} in
  --demo) ;;
  --test) tests=1; packages="$packages $test_packages" ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; [ "$1" = --help ] || [ "$1" = -h ]; exit ;;
esac

missing_packages() {
  local p
  for p in $packages; do echo "$p"; done | sort -u > "$tmp/want"
  # shellcheck disable=SC2086 # a list of words
  dpkg-query -W -f='${db:Status-Status} ${Package}\n' $packages 2>/dev/null |
    sed -n 's/^installed //p' | sort -u > "$tmp/have"
  comm -23 "$tmp/want" "$tmp/have"
  # from Debian 13 on virtiofsd is a package of its own
  if [ $tests = 1 ] && ! compgen -G '/usr/li*/*/virtiofsd' >/dev/null && ! compgen -G '/usr/lib/virtiofsd' >/dev/null &&
    apt-cache show virtiofsd >/dev/null 2>&1; then
    echo virtiofsd
  fi
  # to read the kernel's V4L2 header with; the tests' feature rdma-sys needs one before version 16, which Debian 13 has not
  local clang=
  if ! has_libclang || { [ $tests = 1 ] && ! rdma_sys_builds; }; then
    clang=$(apt-cache pkgnames libclang1- 2>/dev/null | sed -n 's/^libclang1-\([0-9]*\)$/\1/p' | sort -n)
    case " $(echo $clang) " in *" 14 "*) clang=14 ;; *) clang=${clang##*$'\n'} ;; esac
  fi
  if [ -n "$clang" ] && { ! has_libclang || [ "$clang" = 14 ]; }; then
    echo "libclang1-$clang libclang-common-$clang-dev"
  fi
}

install_packages() {
  local missing line
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    pkg-config --exists 'gstreamer-base-1.0 >= 1.22' 2>/dev/null ||
      die "this is not a Debian system: install GStreamer 1.22 or newer with its headers, pkg-config and a C compiler"
    [ $tests = 0 ] || say "not a Debian system: the packages for all tests must be there already"
    return
  fi
  missing=$(missing_packages | tr '\n' ' ')
  [ -n "$missing" ] || return 0
  line="apt-get install -y --no-install-recommends $missing"
  can_be_root || die "packages are missing and this user may not install them; run: sudo $line"
  say "installing: $missing"
  export DEBIAN_FRONTEND=noninteractive
  as_root apt-get -q update || say "apt-get update failed; trying with the lists that are here"
  # shellcheck disable=SC2086 # a list of words
  as_root $line || die "installing failed; run it by hand to see why: sudo $line"
}

cargo_tool() { # NAME: a cargo subcommand
  command -v "cargo-$1" >/dev/null || [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo-$1" ] && return
  say "installing cargo-$1 (a few minutes)"
  cargo install --locked "cargo-$1" || say "cargo-$1 cannot be installed; the stage that needs it will say so"
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
select_toolchain
install_packages
if [ $tests = 1 ]; then
  cargo_tool deny
  cargo_tool fuzz
fi
