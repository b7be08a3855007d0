#!/usr/bin/env bash
# What failed in the last run of scripts/test.sh, shortly: of each stage that failed the tests' last words and the
# verdicts on its parts. The whole is in target/test-logs/STAGE.log.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

failed=$TARGET/test-logs/failed
[ -e "$failed" ] || exit 0
while read -r stage; do
  log=$TARGET/test-logs/$stage.log
  [ -e "$log" ] || continue
  printf '\n-- %s\n' "$stage"
  awk '
    # libtest tells what failed between these lines; 60 lines of each test say enough
    /^---- .* stdout ----$/ { block = 60 }
    /^failures:$/ || /^test result:/ { block = 0 }
    block > 0 { print "  " substr($0, 1, 300); block--; next }
    /^test .* \.\.\. FAILED/ || /^test result: FAILED/ || /^error(\[E[0-9]+\])?: / { print "  " $0 }
    /^-- in the guest: / { guest = 1 }
    guest && /^SKIP: / { print "  " $0 }
    / failed in the guest$/ || /^only [0-9]+ tests passed/ || /: stopped after / || /outlived it$/ { print "  " $0 }
    /^fuzz target .* failed$/ || /no such test binary$/ || /^SUMMARY: / || /^a skip / || /^-- in the guest: / { print "  " $0 }
  ' "$log" | awk '
    # the name of a binary of the suite only where something of it failed
    /^  -- in the guest: / { name = $0; next }
    { if (name != "") print name; name = "" }
    NR <= 400'
done <"$failed"
