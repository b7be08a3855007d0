#!/usr/bin/env bash
# What failed in the last run of scripts/test.sh, shortly: of each stage that failed first the verdicts on its parts,
# then the last words of its tests. The whole is in target/test-logs/STAGE.log.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# The verdicts; the name of a binary of the suite only where something of it failed.
verdicts() {
  awk '
    /^-- in the guest: / { guest = 1; name = $0; next }
    /^test .* \.\.\. FAILED/ || /^test result: FAILED/ || /^error(\[E[0-9]+\])?: / { say(); next }
    guest && /^SKIP: / { say(); next }
    / failed in the guest$/ || /^only [0-9]+ tests passed/ || /: stopped after / || /outlived it$/ { say(); next }
    /^fuzz target .* failed$/ || /no such test binary$/ || /^SUMMARY: / || /^a skip / { say() }
    function say() {
      if (++said > 100) return
      if (name != "") print "  " name
      name = ""
      print "  " substr($0, 1, 300)
    }' "$1"
}

# What libtest tells of a test that failed, without the stack: 40 lines of each say enough. Of what did not come to an
# end, the last lines.
last_words() {
  awk '
    { sub(/\r$/, ""); line = substr($0, 1, 300); recent[NR % 20] = line }
    /^-- in the guest: / || /^     Running / { ended = 0 }
    /^---- .* stdout ----$/ { block = 40; stack = 0 }
    /^stack backtrace:$/ { stack = 1 }
    /^failures:$/ || /^test result:/ { block = 0; ended = 1 }
    block > 0 && !stack { say(line); block-- }
    /^note: .*RUST_BACKTRACE/ { stack = 0 }
    (/ failed in the guest$/ || /: stopped after [0-9]+ s$/) && !ended {
      for (i = NR + 1; i <= NR + 20; i++) if (i % 20 in recent) say(recent[i % 20])
    }
    function say(text) { if (++said <= 400) print "  " text }' "$1"
}

failed=$TARGET/test-logs/failed
[ -e "$failed" ] || exit 0
while read -r stage; do
  log=$TARGET/test-logs/$stage.log
  [ -e "$log" ] || continue
  printf '\n-- %s\n' "$stage"
  verdicts "$log"
  last_words "$log"
done <"$failed"
