# Common parts of the scripts here; sourced, not run.
# Toolchain policy: any rustc from `rust-version` of Cargo.toml on will do. There is no rust-toolchain file, since
# it would make rustup download a second toolchain on machines whose own one suits.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
case $TARGET in /*) ;; *) TARGET=$PWD/$TARGET ;; esac

say() { echo "${0##*/}: $*"; }
die() {
  echo "${0##*/}: $*" >&2
  exit 1
}
in_ci() { [ "${CI:-}" = true ]; }

# version_ge A B: is version A at least B?
version_ge() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

rust_needed() { sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' "$ROOT/Cargo.toml" | head -n 1; }

# rustc_version [TOOLCHAIN]: the version, or nothing when it does not run.
rustc_version() {
  if [ $# -gt 0 ]; then set -- rustup run "$1" rustc; else set -- rustc; fi
  { "$@" --version 2>/dev/null || true; } | sed -n 's/^rustc \([0-9.]*\).*/\1/p'
}

# Installed toolchains, beta and nightly last.
installed_toolchains() {
  rustup toolchain list | awk '{print (/^(beta|nightly)/ ? 1 : 0), $1}' | sort -k1,1n -s | cut -d' ' -f2
}

# Makes cargo and a suitable rustc available to this process and its children, or explains what to do.
select_toolchain() {
  command -v cargo >/dev/null || PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
  local need have t have_t
  need=$(rust_needed)
  command -v cargo >/dev/null || command -v rustup >/dev/null ||
    die "Rust is missing: install rustup (see rustup.rs), then run this again; rustc $need or newer is needed"
  have=$(rustc_version)
  if [ -n "$have" ] && version_ge "$have" "$need"; then return; fi
  if command -v rustup >/dev/null; then
    for t in $(installed_toolchains); do
      have_t=$(rustc_version "$t")
      if [ -n "$have_t" ] && version_ge "$have_t" "$need"; then
        say "rustc ${have:-by default: none}, $need or newer is needed: using the installed toolchain $t ($have_t)"
        export RUSTUP_TOOLCHAIN=$t
        return
      fi
    done
    say "no installed toolchain is at least $need; installing $need beside them"
    if rustup toolchain install "$need" --profile minimal --component clippy --component rustfmt; then
      export RUSTUP_TOOLCHAIN=$need
      return
    fi
    die "rustc $need or newer is needed (found: ${have:-none}); run: rustup toolchain install stable"
  fi
  die "rustc $need or newer is needed, found ${have:-none}; the distribution's is too old: install rustup, then run this again"
}

# Is there a libclang that the crate rdma-sys can be built with?
rdma_sys_builds() { compgen -G '/usr/lib/*/libclang-1[45].so*' >/dev/null || [ -n "${LIBCLANG_PATH:-}" ]; }

# Is there any libclang, which the kernel's V4L2 header is read with?
has_libclang() { compgen -G '/usr/lib/*/libclang-[0-9]*.so*' >/dev/null || compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null || [ -n "${LIBCLANG_PATH:-}" ]; }

# as_root COMMAND...: run it as root, or return 1 where that is impossible without a password prompt on no terminal.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif can_be_root; then
    sudo -E "$@"
  else
    return 1
  fi
}
can_be_root() {
  [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && { sudo -n true 2>/dev/null || { [ -t 0 ] && [ -t 2 ]; }; }; }
}

# nightly_toolchain COMPONENT...: prints a nightly toolchain that has these components; returns 1 with the reason on stderr.
nightly_toolchain() {
  local t c
  command -v rustup >/dev/null || { echo "no rustup, so no nightly toolchain" >&2; return 1; }
  t=$(rustup toolchain list | awk '/^nightly/{print $1; exit}')
  if [ -z "$t" ]; then
    rustup toolchain install nightly --profile minimal >&2 || { echo "the nightly toolchain cannot be installed" >&2; return 1; }
    t=$(rustup toolchain list | awk '/^nightly/{print $1; exit}')
  fi
  for c in "$@"; do
    rustup component list --toolchain "$t" --installed 2>/dev/null | grep -q "^$c\(-\|\$\)" && continue
    rustup component add "$c" --toolchain "$t" >&2
    # rustup may report success when the download failed: look again
    rustup component list --toolchain "$t" --installed | grep -q "^$c\(-\|\$\)" ||
      { echo "component $c of $t cannot be installed" >&2; return 1; }
  done
  echo "$t"
}
