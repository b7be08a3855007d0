#!/usr/bin/env bash
# Sets up what is missing, builds the `pagecast` command and runs its demonstration.
#   scripts/demo.sh [--quick | other options of `pagecast demo`]
set -euo pipefail
. "$(dirname "$0")/lib.sh"
"$ROOT/scripts/setup.sh" --demo
select_toolchain
cargo build --release --manifest-path "$ROOT/Cargo.toml" --target-dir "$TARGET" -p pagecast-cli
exec "$TARGET/release/pagecast" demo "$@"
