#!/usr/bin/env bash
# Schemathesis against a real server: requests made from the OpenAPI document the server itself serves, good ones and bad
# ones. No answer may be a 5xx, or one that the document does not have.
#
#   tests/interop/check_openapi.sh [minutes] [binary]       3 minutes, target/debug or target/release/modelpress
set -euo pipefail
cd "$(dirname "$0")/../.."

minutes=${1:-3}
binary=${2:-target/release/modelpress}
[ -x "$binary" ] || binary=target/debug/modelpress

work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT

venv=${OPENAPI_VENV:-target/openapi-venv}
if [ ! -x "$venv/bin/schemathesis" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q 'schemathesis==4.32.5'
fi

# Small limits, so that many requests cost little; no workers, so that jobs stay where they are.
MODELPRESS_WORKERS=0 MODELPRESS_MAX_FILE_BYTES=1MiB MODELPRESS_RESERVE_BYTES=1MiB MODELPRESS_IDLE_TIMEOUT_SECONDS=2 \
  "$binary" serve --data-dir "$work/data" --listen 127.0.0.1:0 --log-format json 2>"$work/log" &
server=$!
for _ in $(seq 300); do
  address=$(sed -n 's/.*"message":"serving","address":"\([^"]*\)".*/\1/p' "$work/log")
  [ -z "$address" ] || break
  sleep 0.1
done
if [ -z "$address" ]; then
  cat "$work/log" >&2
  exit 1
fi

# Event streams and the probes' own rules are tested elsewhere: a stream does not end.
code=0
export PYTHONPATH=tests/interop SCHEMATHESIS_HOOKS=openapi_hooks
"$venv/bin/schemathesis" run "http://$address/openapi.json" \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
  --max-time $((minutes * 60)) --max-examples 200 --request-timeout 20 --continue-on-failure \
  --exclude-path '/v1/jobs/{id}/events' --suppress-health-check all --warnings off --no-color ${SCHEMATHESIS_OPTIONS:-} || code=$?

if grep -q '"level":"ERROR"' "$work/log"; then
  echo "the server logged errors:" >&2
  grep '"level":"ERROR"' "$work/log" | head -n 20 >&2
  code=1
fi
exit "$code"
