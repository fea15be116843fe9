#!/usr/bin/env bash
# Runs fuzz targets one after another. Needs a C++ compiler and no nightly toolchain.
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

[ $# -gt 0 ] || set -- $(sed -n 's/^    ("\([a-z_]*\)", .*/\1/p' targets.rs)
failed=()
for target in "$@"; do
  mkdir -p "$dir/$target/corpus" "$dir/$target/artifacts"
  echo "=== $target"
  if ! FUZZ_TARGET=$target RUST_BACKTRACE=1 "$fuzz" \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
    -artifact_prefix="$dir/$target/artifacts/" "$dir/$target/corpus" "seeds/$target" \
    >"$dir/$target/log" 2>&1; then
    failed+=("$target")
    grep -E "panicked|ERROR|SUMMARY|Test unit" -A2 "$dir/$target/log" | head -n 20
  fi
  grep -E "stat::number_of_executed_units|stat::peak_rss_mb" "$dir/$target/log" || true
done
if [ "${#failed[@]}" -gt 0 ]; then
  echo "failed: ${failed[*]}; logs are in $dir/<target>/log"
  exit 1
fi
