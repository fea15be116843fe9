#!/usr/bin/env bash
# The Python SDK: generated code is current, types hold, tests pass against the real server, and the wheel works.
#
#   openapi/sdks/python/check.sh path/to/modelpress [pytest's arguments…]
#
# The virtual environment stays in $INTEROP_CACHE (~/.cache/modelpress-interop) for the next time.
set -euo pipefail
binary=$(realpath "${1:?usage: check.sh path/to/modelpress}")
shift
cd "$(dirname "$0")"

cache=${INTEROP_CACHE:-$HOME/.cache/modelpress-interop}
venv=$cache/sdk-python
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -e '.[test]'

began=$SECONDS
"$venv/bin/python" generate.py --check
"$venv/bin/mypy" --cache-dir "$cache/sdk-python-mypy"
MODELPRESS_BINARY=$binary PYTHONDONTWRITEBYTECODE=1 "$venv/bin/python" -m pytest -q -p no:cacheprovider "$@"

# The wheel, in an environment that has nothing else: that everything is packed, and that httpx is all it needs.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$venv/bin/python" -m build --wheel --outdir "$work" . >"$work/log" || { cat "$work/log" >&2; exit 1; }
python3 -m venv "$work/bare"
"$work/bare/bin/pip" install --quiet --disable-pip-version-check "$work"/*.whl
version=$(sed -n 's/^version = "\(.*\)"/\1/p' ../../../Cargo.toml | head -n 1)
(cd "$work" && bare/bin/python - "$version" <<'PYTHON')
import importlib.resources, sys
import modelpress

assert modelpress.__version__ == sys.argv[1], f"the package is {modelpress.__version__}, the server {sys.argv[1]}"
assert importlib.resources.files("modelpress").joinpath("py.typed").is_file(), "py.typed is not in the wheel"
modelpress.Client("http://127.0.0.1:1").close()
PYTHON
echo "the Python SDK is fine ($((SECONDS - began)) s)"
