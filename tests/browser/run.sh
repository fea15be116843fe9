#!/usr/bin/env bash
# The dashboard in a real browser: run.sh MODELPRESS [--assets DIR] [--only PARTS] [--screenshots DIR]
#
# Starts the binary on free ports with folders of its own and goes through the whole job in Debian's Chromium: upload,
# plan, start, watch, report, download; then the other pages, keys, keyboard, narrow and dark screens, and axe's rules.
# --assets takes pages and modules from a folder instead of from the binary; --only names parts of run.mjs, separated by
# commas; --screenshots writes what was seen. MODELPRESS_SMOLLM2 names a folder with SmolLM2 to send that as well.
# INTEROP_CACHE is where npm's packages go.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=$(realpath "${1:?usage: run.sh MODELPRESS [--assets DIR] [--only PARTS] [--screenshots DIR]}")
shift
cache=${INTEROP_CACHE:-$HOME/.cache/modelpress-interop}/browser

root() { # as root, by whatever means there is
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}
install() { # packages…
  root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}
[ -x /usr/bin/chromium ] || install chromium fonts-dejavu-core
command -v npm >/dev/null || install nodejs npm

mkdir -p "$cache"
if ! cmp -s "$here/package-lock.json" "$cache/package-lock.json" || [ ! -d "$cache/node_modules/axe-core" ]; then
  cp "$here/package.json" "$here/package-lock.json" "$cache/"
  npm ci --silent --no-audit --no-fund --prefix "$cache"
fi
BROWSER_MODULES=$cache/node_modules exec node "$here/run.mjs" "$binary" "$@"
