#!/usr/bin/env bash
# What must never be committed: paths of one machine, unfinished code, ignored tests, overlong files.
set -euo pipefail
cd "$(dirname "$0")/.."

bad=0
# forbid WHAT PATTERN [PATHSPEC…]: no tracked line may match. [x] in a pattern keeps it from matching itself here.
forbid() {
  local what=$1 pattern=$2
  shift 2
  if git grep -nIE "$pattern" -- "$@"; then
    echo "checks.sh: $what (lines above)" >&2
    bad=1
  fi
}
forbid "a home folder's path" '(^|[^A-Za-z0-9_.])/(home/[a-z]+|root/[.a-zA-Z]|Users/[A-Za-z]+)'
forbid "unfinished code" '(todo|unimplemented)!\(|\b([T]ODO|[F]IXME|[X]XX)\b' '*.rs' '*.sh' '*.toml'
forbid "debugging left in" 'dbg!\(' '*.rs'
# a passing test's captured output is not shown: write the line to stdout() itself
forbid "a skip that nobody sees" 'print(ln)?!\("[^"]*SKIP:' '*.rs'
# the part of a test that runs in another process is started by that test, and by nothing else
forbid "an ignored test" '#\[ignore(\]| = "([^r]|r[^u]|ru[^n]|run[^s]|runs [^a]))' '*.rs'
forbid "a merge conflict" '^(<<<<<<<|>>>>>>>) '

while read -r lines file; do
  if [ "$lines" -gt 600 ]; then
    echo "checks.sh: $file has $lines lines, at most 600 are allowed" >&2
    bad=1
  fi
done < <(git ls-files -z '*.rs' | xargs -0 -r wc -l | awk '$2 != "total"')

for f in $(git ls-files scripts testbed .ci); do
  case $(head -n 1 "$f") in '#!'*) [ -x "$f" ] || { echo "checks.sh: $f is not executable" >&2; bad=1; } ;; esac
  case $(head -n 1 "$f") in '#!'*bash) bash -n "$f" || bad=1 ;; esac
done

[ $bad = 0 ] && echo "checks.sh: ok"
exit $bad
