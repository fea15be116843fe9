#!/usr/bin/env bash
# Runs fuzz targets, FUZZ_JOBS (1) at a time. Needs a C++ compiler and no nightly toolchain.
#
#   tests/fuzz/run.sh                    every target, 60 seconds each
#   tests/fuzz/run.sh 600 gguf recipe    these, ten minutes each
#
# A target fails on a panic, an overflow, one allocation of more than 64 MiB (memory.rs), more than 2 GiB in all, or an
# input that takes more than 10 seconds. What it failed on is in $FUZZ_DIR/<target>/artifacts, and what it learned in
# $FUZZ_DIR/<target>/corpus ($FUZZ_DIR is target/fuzz unless set). FUZZ_TARGET_DIR is where cargo builds.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-60}
[ $# -eq 0 ] || shift
dir=${FUZZ_DIR:-$PWD/../../target/fuzz}
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$PWD/../../target/fuzz-build}

RUSTC_WRAPPER=$PWD/rustc.sh CARGO_INCREMENTAL=0 cargo build --quiet --locked
fuzz=$CARGO_TARGET_DIR/debug/fuzz

# The server's side of a connection may close first; libFuzzer's main leaves that deadly.
trap '' PIPE

one() {
  local target=$1 at=$dir/$1
  rm -f "$at/failed"
  mkdir -p "$at/corpus" "$at/artifacts"
  FUZZ_TARGET=$target RUST_BACKTRACE=1 "$fuzz" \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
    -artifact_prefix="$at/artifacts/" "$at/corpus" "seeds/$target" \
    >"$at/log" 2>&1 || touch "$at/failed"
  local said
  said="=== $target
$(grep -E "stat::number_of_executed_units|stat::peak_rss_mb" "$at/log" || true)"
  [ ! -e "$at/failed" ] || said="$said
$(grep -E "panicked|ERROR|SUMMARY|Test unit" -A2 "$at/log" | head -n 20)"
  echo "$said"
}

[ $# -gt 0 ] || set -- $(sed -n 's/^    ("\([a-z_]*\)", .*/\1/p' targets.rs)
for target in "$@"; do
  while [ "$(jobs -rp | wc -l)" -ge "${FUZZ_JOBS:-1}" ]; do wait -n || true; done
  one "$target" &
done
wait
failed=()
for target in "$@"; do [ ! -e "$dir/$target/failed" ] || failed+=("$target"); done
if [ "${#failed[@]}" -gt 0 ]; then
  echo "failed: ${failed[*]}; logs are in $dir/<target>/log"
  exit 1
fi
