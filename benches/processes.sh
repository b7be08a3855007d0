# The processes of one measurement; sourced by the scripts beside it.

pids=()
# end: asks all that were started to end, and waits until they have
end() {
  local p
  for p in "${pids[@]}"; do kill -INT "$p" 2>/dev/null || true; done
  for p in "${pids[@]}"; do wait "$p" 2>/dev/null || true; done
  pids=()
}
