#!/usr/bin/env bash
# Paired timing of GGUF quantization: llama-quantize (A) and modelpress (B), alternating A B A B.
#
#   bench_quantize.sh F16.gguf [LLAMA_QUANTIZE [MODELPRESS]]
#
# Environment: TYPES ("Q8_0 Q4_0 Q6_K Q4_K_M"), THREADS ("1 2"), REPS (3), OUT (a scratch folder with room
# for two outputs), MODELPRESS_CMD, the command for B with {bin} {in} {out} {type} {threads} filled in.
# Without MODELPRESS only A is timed. The input is read once first, so both find it in the page cache; the
# outputs are deleted after each run. Prints every run, then medians: wall, user + system seconds, peak RSS.
# Absolute times drift on a shared machine: compare only within one run of this script.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
input=${1:?usage: bench_quantize.sh F16.gguf [LLAMA_QUANTIZE [MODELPRESS]]}
llama=${2:-llama-quantize}
modelpress=${3:-}
types=${TYPES:-Q8_0 Q4_0 Q6_K Q4_K_M}
threads=${THREADS:-1 2}
reps=${REPS:-3}
out=${OUT:-$(mktemp -d)}
command=${MODELPRESS_CMD:-'{bin} compress {in} --recipe {type} --format gguf --threads {threads} --out {out}'}
mkdir -p "$out"
log=$out/runs.tsv
printf 'tool\ttype\tthreads\twall_s\tcpu_s\tpeak_rss_mb\toutput_bytes\n' | tee "$log"

timed() { # tool type threads output command...
  local tool=$1 type=$2 n=$3 output=$4
  shift 4
  rm -rf "$output"
  if ! /usr/bin/time -f '%e %U %S %M' -o "$out/time" "$@" >"$out/$tool.log" 2>&1; then
    echo "$tool $type failed:" >&2
    tail -5 "$out/$tool.log" >&2
    exit 1
  fi
  local wall user sys rss bytes
  read -r wall user sys rss <"$out/time"
  bytes=$(find "$output" -type f -name '*.gguf' -printf '%s\n' | sort -n | tail -1)
  awk -v a="$tool" -v b="$type" -v c="$n" -v w="$wall" -v u="$user" -v s="$sys" -v r="$rss" -v o="$bytes" \
    'BEGIN { printf "%s\t%s\t%s\t%.2f\t%.2f\t%.0f\t%s\n", a, b, c, w, u + s, r / 1024, o }' | tee -a "$log"
  rm -rf "$output"
}

cat "$input" >/dev/null
for type in $types; do
  for n in $threads; do
    for _ in $(seq "$reps"); do
      timed llama-quantize "$type" "$n" "$out/a.gguf" "$llama" "$input" "$out/a.gguf" "$type" "$n"
      if [ -n "$modelpress" ]; then
        line=${command//'{bin}'/$modelpress}
        line=${line//'{in}'/$input}
        line=${line//'{out}'/$out/b}
        line=${line//'{type}'/$type}
        line=${line//'{threads}'/$n}
        # shellcheck disable=SC2086 # the template is split into words on purpose
        RAYON_NUM_THREADS=$n timed modelpress "$type" "$n" "$out/b" $line
      fi
    done
  done
done

echo
python3 - "$log" <<'PY'
import collections, csv, statistics, sys
runs = collections.defaultdict(list)
for r in csv.DictReader(open(sys.argv[1]), delimiter="\t"):
    runs[r["type"], r["threads"], r["tool"]].append([float(r[k]) for k in ("wall_s", "cpu_s", "peak_rss_mb")])
print("| type | threads | tool | wall s | cpu s | peak RSS MB |\n|---|---|---|---|---|---|")
for key, rows in runs.items():
    print("| " + " | ".join([*key, *(f"{statistics.median(c):.1f}" for c in zip(*rows))]) + " |")
PY
