#!/usr/bin/env bash
# Peak memory of whole jobs on a large checkpoint: bench_memory.sh MODEL_DIR MODELPRESS
#
# MODEL_DIR is made by `make_synthetic.py hf`. For each recipe: peak resident memory as the kernel counted it, what the
# plan promised, and the bound of 512 MiB plus four times the largest tensor. Fails if either is exceeded. A recipe that
# is an object runs the model over data: its bound is half of the checkpoint, for what is promised too.
# Environment: RECIPES (names of presets or objects without spaces, separated by spaces), OUT (a scratch folder with room
# for one output).
set -euo pipefail
model=${1:?usage: bench_memory.sh MODEL_DIR MODELPRESS}
modelpress=${2:?usage: bench_memory.sh MODEL_DIR MODELPRESS}
data='"calibration":{"num_samples":8,"max_seq_length":512,"max_activation_bytes":16777216}'
recipes=${RECIPES:-Q4_K_M Q8_0 W4A16 W8A8 FP8_DYNAMIC gptq-rtn nf4 {\"preset\":\"W4A16_GPTQ\",$data\}}
out=${OUT:-$(mktemp -d)}

largest=$(python3 - "$model" <<'PY'
import json, pathlib, struct, sys
most = 0
for path in pathlib.Path(sys.argv[1]).glob("*.safetensors"):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    most = max([most, *(e["data_offsets"][1] - e["data_offsets"][0] for n, e in header.items() if n != "__metadata__")])
print(most)
PY
)
bytes=$(du -sbL "$model" | cut -f1)
echo "checkpoint $((bytes >> 20)) MiB, largest tensor $((largest >> 20)) MiB"
echo "| recipe | wall s | peak RSS MiB | planned MiB | bound MiB |"
echo "|---|---|---|---|---|"
failed=0
for recipe in $recipes; do
  rm -rf "$out/job"
  /usr/bin/time -f '%e %M' -o "$out/time" "$modelpress" compress "$model" --recipe "$recipe" --out "$out/job" >"$out/log" 2>&1 || {
    cat "$out/log" >&2
    exit 1
  }
  read -r wall rss <"$out/time"
  planned=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["planned_peak_memory_bytes"])' "$out/job/report.json")
  bound=$(((512 << 20) + 4 * largest))
  if [ "${recipe#\{}" != "$recipe" ]; then bound=$((bytes / 2)); fi
  echo "| $recipe | $wall | $((rss >> 10)) | $((planned >> 20)) | $((bound >> 20)) |"
  if [ $((rss << 10)) -gt "$bound" ] || { [ "${recipe#\{}" != "$recipe" ] && [ "$planned" -gt "$bound" ]; } || [ $((rss << 10)) -gt "$planned" ]; then failed=1; fi
done
rm -rf "$out/job"
exit $failed
