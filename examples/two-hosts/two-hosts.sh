#!/usr/bin/env bash
# Two hosts on one machine: two network namespaces with nothing but a cable between them.
#   two-hosts.sh COMMAND_ON_HOST_1 [COMMAND_ON_HOST_2]
# Each command is a text for bash. There $HOST_1 and $HOST_2 are the addresses; `$ON_HOST_2 PROGRAM …` in host 1's
# command starts a program on host 2. Ends when both have ended, with the first exit code that is not 0.
# Processes, addresses and cable have no names that could collide, and are gone when this ends, however it
# ends. Root is not needed where users may make namespaces.
# Only networks are apart: files, and so unix: addresses, are shared.
set -euo pipefail

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }

inside() { # process 1 of all that follows, on host 1
  local one=$1 two=${2:-} first=0 keeper running=()
  ip link set lo up
  # host 2's network lives as long as this process
  # shellcheck disable=SC2016 # for the other shell
  coproc KEEPER { exec unshare --net bash -c 'echo $$; exec sleep infinity'; }
  read -r keeper <&"${KEEPER[0]}"
  export ON_HOST_2="nsenter --net=/proc/$keeper/ns/net"
  ip link add cable type veth peer name cable netns "$keeper"
  ip address add "$HOST_1/24" dev cable
  ip link set cable up
  $ON_HOST_2 ip link set lo up
  $ON_HOST_2 ip address add "$HOST_2/24" dev cable
  $ON_HOST_2 ip link set cable up
  # the other end is up a moment after it was told to be
  for _ in {1..500}; do
    ! ip -brief link show dev cable | grep -q ' UP ' || break
    sleep 0.01
  done
  # process 1 gets no signal that it does not ask for
  trap 'kill -INT "${running[@]}" 2>/dev/null' INT TERM
  if [ -n "$two" ]; then
    $ON_HOST_2 bash -e -o pipefail -c "$two" & running+=($!)
  fi
  bash -e -o pipefail -c "$one" & running+=($!)
  for process in "${running[@]}"; do
    local code=0
    wait "$process" || code=$?
    # a signal ends `wait`, not the process
    while kill -0 "$process" 2>/dev/null; do code=0; wait "$process" || code=$?; done
    [ "$first" != 0 ] || first=$code
  done
  return "$first"
}

if [ "${1:-}" = --inside ]; then
  shift
  inside "$@"
  exit
fi
case ${1:-} in
  -h | --help) usage; exit ;;
esac
[ $# = 1 ] || [ $# = 2 ] || { usage >&2; exit 2; }
export HOST_1=10.77.0.1 HOST_2=10.77.0.2
user=()
[ "$(id -u)" = 0 ] || user=(--user --map-root-user)
exec unshare "${user[@]}" --net --pid --mount --mount-proc --fork --kill-child -- "$0" --inside "$@"
