#!/usr/bin/env bash
# Runs the examples against a real server.
#
#   openapi/sdks/examples/check.sh path/to/modelpress                 MLflow, GitHub Actions, Argo
#   openapi/sdks/examples/check.sh path/to/modelpress prefect         Prefect: 260 MB to install
#   openapi/sdks/examples/check.sh path/to/modelpress airflow         Airflow: 300 MB, three minutes to install
#
# Several names run several. Virtual environments stay in $INTEROP_CACHE (~/.cache/modelpress-interop) for the next time.
set -euo pipefail
binary=$(realpath "${1:?usage: check.sh path/to/modelpress [steps|prefect|airflow…]}")
shift
[ $# -gt 0 ] || set -- steps
cd "$(dirname "$0")"
cache=${INTEROP_CACHE:-$HOME/.cache/modelpress-interop}

check() { # name requirements tests…
  local venv=$cache/sdk-examples-$1 requirements=$2 began=$SECONDS
  shift 2
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -e ../python -r "$requirements"
  MODELPRESS_BINARY=$binary PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m pytest -q -p no:cacheprovider "$@"
  echo "$* ($((SECONDS - began)) s)"
}

for name in "$@"; do
  case $name in
    steps) check steps requirements.txt tests/test_steps.py tests/test_mlflow.py ;;
    prefect) check prefect requirements-prefect.txt tests/test_prefect.py ;;
    airflow) check airflow requirements-airflow.txt tests/test_airflow.py ;;
    *)
      echo "no example $name: steps prefect airflow" >&2
      exit 2
      ;;
  esac
done
