#!/usr/bin/env bash
# Checks the client against a real server: what is generated is current, everything compiles, every test passes.
#
#   openapi/sdks/typescript/check.sh BINARY [options of node --test…]
#
# It works in a copy, in ${INTEROP_CACHE:-~/.cache/modelpress-interop}/sdk-typescript: nothing is left in the checkout.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:?usage: check.sh BINARY}")
shift
copy=${INTEROP_CACHE:-$HOME/.cache/modelpress-interop}/sdk-typescript
mkdir -p "$copy"

node "$here/generate.mjs" --check

# Sources are replaced as a whole, so that no file stays that is gone here; packages stay while the lock does.
rm -rf "$copy"/{src,test,dist,build}
cp -r "$here"/{package.json,package-lock.json,tsconfig.json,tsconfig.browser.json,tsconfig.test.json,README.md,src,test} "$copy"
cd "$copy"
if ! cmp -s package-lock.json node_modules/.locked; then
  npm ci --silent --no-audit --no-fund --ignore-scripts
  cp package-lock.json node_modules/.locked
fi

# The second pass has no types of Node: the entry for browsers must do without.
node_modules/.bin/tsc -p tsconfig.json
node_modules/.bin/tsc -p tsconfig.browser.json
node_modules/.bin/tsc -p tsconfig.test.json

unset MODELPRESS_URL MODELPRESS_API_KEY
# Tests wait for servers more than they compute.
MODELPRESS_BINARY=$binary MODELPRESS_SDK=$here node --test --test-concurrency 3 --test-timeout 120000 --test-reporter spec "$@" build/
