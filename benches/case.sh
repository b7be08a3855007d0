#!/usr/bin/env bash
# benches/case.sh [OPTIONS]: one camera, three programs: one records a smaller picture, two send RTP. What handing the frames over
# costs, by pagecastsink and by shmsink, apart from scaling and encoding. All are gst-launch processes; JSON on stdout.
#
#   --runs N          runs of each, interleaved (7)
#   --seconds S       of each that are measured, after 3 s of warm-up (8)
#   --size WxH --rate N --format F        of the source (1920x1080, 30, NV12)
#   --source ELEMENTS a camera, e.g. "v4l2src device=/dev/video0 io-mode=dmabuf"; else a raw file that this makes first
#   --scaler ELEMENTS (videoscale)        for the recording, to --record WxH (1280x720)
#   --encoder ELEMENTS ("x264enc speed-preset=ultrafast tune=zerolatency threads=1"), of H.264
#   --only carry|work (both)
#
# carry: the three take the frames and do nothing with them; work: they scale, encode, write a file, send RTP to 127.0.0.1.
# none:  carry: the source alone; work: each of the three with a file of its own instead of a link (not with a camera).
# Build first: cargo build --release -p gst-plugin-pagecast. Let the machine do nothing else meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=7 seconds=8 size=1920x1080 rate=30 format=NV12 source="" parts="carry work" record=1280x720
scaler=videoscale encoder="x264enc speed-preset=ultrafast tune=zerolatency threads=1"
while [ $# -gt 0 ]; do
  [ $# -gt 1 ] || [ "$1" = --help ] || [ "$1" = -h ] || { echo "$0: $1 needs a value" >&2; exit 2; }
  case $1 in
    --runs) runs=$2 ;; --seconds) seconds=$2 ;; --size) size=$2 ;; --rate) rate=$2 ;; --format) format=$2 ;;
    --source) source=$2 ;; --scaler) scaler=$2 ;; --encoder) encoder=$2 ;; --record) record=$2 ;; --only) parts=$2 ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    *) echo "$0: unknown option $1" >&2; exit 2 ;;
  esac
  shift 2
done
warmup=3
width=${size%x*} height=${size#*x}
caps="video/x-raw,format=$format,width=$width,height=$height,framerate=$rate/1"
dir=$(mktemp -d)
. benches/processes.sh
trap 'end; rm -rf "$dir"' EXIT

export GST_PLUGIN_PATH=${GST_PLUGIN_PATH:-$PWD/target/release} GST_REGISTRY=$dir/registry
gst-inspect-1.0 pagecastsink >/dev/null || { echo "$0: no pagecastsink in $GST_PLUGIN_PATH: build it first" >&2; exit 1; }
if [ -z "$source" ]; then
  frame=$((width * height * 3 / 2))
  raw="video/x-raw,format=I420,width=$width,height=$height,framerate=$rate/1"
  gst-launch-1.0 -q videotestsrc pattern=smpte100 horizontal-speed=6 num-buffers=$(((seconds + 2 * warmup + 2) * rate)) ! \
    "$raw" ! filesink location="$dir/clip" >&2
  # The pace is that of the time stamps. As a decoder does, videoconvert writes into the pages that its sink offers.
  pace="identity single-segment=true datarate=$((frame * rate))"
  feed="filesrc location=$dir/clip blocksize=$frame ! $pace ! $raw ! videoconvert ! $caps"
  # The same for consumers that have it to themselves: nothing behind keeps the pace.
  own="filesrc location=$dir/clip blocksize=$frame ! rawvideoparse format=i420 width=$width height=$height framerate=$rate/1 ! clocksync ! videoconvert ! $caps"
else
  feed="$source ! $caps"
fi

# start NAME ELEMENTS…: a process; its pictures are counted each second in $dir/NAME
start() {
  local name=$1
  shift
  # shellcheck disable=SC2086 # a list of elements
  gst-launch-1.0 $* >"$dir/$name" 2>&1 &
  pids+=($!)
}
count="progressreport name=count update-freq=1 format=buffers do-query=false"
# work RECORD|RTP PORT: what a consumer does
work() {
  case $1 in
    record) echo "$scaler ! video/x-raw,width=${record%x*},height=${record#*x} ! $encoder ! h264parse ! matroskamux ! filesink location=$dir/record.mkv" ;;
    rtp) echo "$encoder ! h264parse ! rtph264pay ! udpsink host=127.0.0.1 port=$2 sync=false" ;;
  esac
}
# consumers PART SOURCE: three of them
consumers() {
  local at job
  for at in 0 1 2; do
    case $1,$at in
      carry,*) job="fakesink sync=false" ;;
      work,0) job=$(work record) ;;
      work,*) job=$(work rtp $((5002 + 2 * at))) ;;
    esac
    start "consumer$at" "$2 ! $count ! $job"
  done
}
# cpu PID: nanoseconds on a processor, all threads; one may end meanwhile
cpu() { { cat "/proc/$1"/task/*/schedstat 2>/dev/null || true; } | awk '{ sum += $1 } END { printf "%.0f", sum }'; }
# pictures NAME: seconds and pictures of the last count
pictures() { sed -n 's/^count (\([0-9]*\):\([0-9]*\):\([0-9]*\)): \([0-9]*\) buffers$/\1 \2 \3 \4/p' "$dir/$1" | awk '{ t = $1 * 3600 + $2 * 60 + $3; n = $4 } END { print t + 0, n + 0 }'; }

# run PART TRANSPORT: CPU milliseconds per picture of each process, and the fewest pictures per second that one of them had
run() {
  local socket=$dir/socket name p before=() after=() from=() to=() names=()
  rm -f "$dir"/socket* "$dir"/consumer* "$dir"/producer
  case $1,$2 in
    carry,none) start producer "$feed ! $count ! fakesink sync=true"; names=(producer) ;;
    work,none) consumers work "$own"; names=(consumer0 consumer1 consumer2) ;;
    *)
      local sink=pagecastsink from_link="pagecastsrc socket-path=$socket"
      if [ "$2" = shm ]; then
        sink="shmsink shm-size=$((width * height * 2 * 32))" from_link="shmsrc socket-path=$socket is-live=true do-timestamp=true ! $caps"
      fi
      start producer "$feed ! $count ! $sink socket-path=$socket wait-for-connection=true sync=true"
      until [ -S "$socket" ]; do kill -0 "${pids[0]}" || { cat "$dir/producer" >&2; exit 1; }; sleep 0.02; done
      consumers "$1" "$from_link"
      names=(producer consumer0 consumer1 consumer2)
      ;;
  esac
  sleep "$warmup"
  for p in "${pids[@]}"; do before+=("$(cpu "$p")"); done
  local then=$EPOCHREALTIME
  for name in "${names[@]}"; do from+=("$(pictures "$name")"); done
  sleep "$seconds"
  for p in "${pids[@]}"; do after+=("$(cpu "$p")"); done
  local now=$EPOCHREALTIME
  for name in "${names[@]}"; do to+=("$(pictures "$name")"); done
  for p in "${pids[@]}"; do kill -0 "$p" || { tail -n 5 "$dir"/producer "$dir"/consumer* >&2; exit 1; }; done
  end
  local at
  for at in "${!names[@]}"; do echo "${before[at]} ${after[at]} ${from[at]} ${to[at]}"; done |
    awk -v wall="$(awk -v a="$then" -v b="$now" 'BEGIN { print b - a }')" -v rate="$rate" -v part="$1" -v transport="$2" '
      { fps = $5 > $3 ? ($6 - $4) / ($5 - $3) : 0; if (NR == 1 || fps < least) least = fps
        # The first is the source, unless each has its own.
        if (NR == 1 || transport == "none") pictures = wall * (fps > 0 ? fps : rate)
        cpu = ($2 - $1) / 1e6 / pictures; total += cpu; each = each (NR > 1 ? "," : "") sprintf("%.4f", cpu) }
      END { printf "%s %s %.4f [%s] %.2f\n", part, transport, total, each, least }'
}

for _ in $(seq "$runs"); do
  # Work alone is told from what the source costs, too.
  [ "$parts" != work ] || run carry none | tee -a "$dir/results" >&2
  for part in $parts; do
    for transport in none shm pagecast; do
      if [ "$part,$transport" = work,none ] && [ -n "$source" ]; then continue; fi
      run "$part" "$transport" | tee -a "$dir/results" >&2
    done
  done
done

awk -v machine="$(nproc) cores, Linux $(uname -r)" -v load="$(cut -d' ' -f1 /proc/loadavg)" -v seconds="$seconds" -v caps="$caps" \
  -v source="${source:-a raw file of I420 and videoconvert, paced}" -v encoder="$encoder" -v scaler="$scaler" -v record="$record" '
  function sorted(list, n,   i, j, t) { for (i = 2; i <= n; i++) for (j = i; j > 1 && list[j - 1] > list[j]; j--) { t = list[j]; list[j] = list[j - 1]; list[j - 1] = t } }
  function spread(list, n,   i, runs, v) { runs = ""; for (i = 1; i <= n; i++) { runs = runs (i > 1 ? "," : "") sprintf("%.3f", list[i]); v[i] = list[i] }
    sorted(v, n); return sprintf("{\"median\": %.3f, \"least\": %.3f, \"most\": %.3f, \"runs\": [%s]}", v[int((n + 1) / 2)], v[1], v[n], runs) }
  { key = $1 "," $2; n[key]++; total[key, n[key]] = $3; each[key] = each[key] (n[key] > 1 ? ", " : "") $4; fps[key] = fps[key] (n[key] > 1 ? "," : "") $5; if (!(key in seen)) { seen[key] = ++keys; order[keys] = key } }
  END {
    printf "{\"machine\": \"%s\", \"load\": %s, \"seconds\": %s, \"unit\": \"CPU ms per picture of the source\",\n", machine, load, seconds
    printf " \"caps\": \"%s\", \"source\": \"%s\", \"scaler\": \"%s to %s\", \"encoder\": \"%s\",\n \"measured\": {\n", caps, source, scaler, record, encoder
    for (k = 1; k <= keys; k++) { key = order[k]; split(key, name, ","); for (i = 1; i <= n[key]; i++) list[i] = total[key, i]
      printf "  \"%s %s\": {\"all_processes\": %s,\n   \"each_process\": [%s],\n   \"least_pictures_per_second\": [%s]}%s\n", name[1], name[2], spread(list, n[key]), each[key], fps[key], k < keys ? "," : "" }
    printf " },\n \"transport\": {"
    first = 1
    for (t = 1; t <= 2; t++) { transport = t == 1 ? "shm" : "pagecast"
      if (n["carry,none"] && n["carry," transport]) { m = n["carry,none"]; for (i = 1; i <= m; i++) list[i] = total["carry," transport, i] - total["carry,none", i]
        printf "%s\n  \"carry %s\": %s", first ? "" : ",", transport, spread(list, m); first = 0 }
      if (n["carry,none"] && n["work,none"] && n["work," transport]) { m = n["work,none"]
        # Without a link each of the three has a source of its own.
        for (i = 1; i <= m; i++) list[i] = total["work," transport, i] - total["work,none", i] + 2 * total["carry,none", i]
        printf "%s\n  \"work %s\": %s", first ? "" : ",", transport, spread(list, m); first = 0 } }
    printf "\n }}\n" }' "$dir/results"
