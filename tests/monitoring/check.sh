#!/usr/bin/env bash
# Checks what config/ has for monitoring with the programs that will read it: promtool parses the alerts and the queries
# of the dashboard and runs the alerts' unit tests; Grafana's own model reads the dashboard.
#
#   tests/monitoring/check.sh          promtool from PATH, or else from Debian's package, unpacked into target/monitoring
set -euo pipefail
cd "$(dirname "$0")/../.."

work=target/monitoring
mkdir -p "$work"

promtool() {
  if type -P promtool >/dev/null; then
    command promtool "$@"
    return
  fi
  if [ ! -x "$work/prometheus/usr/bin/promtool" ]; then
    (
      cd "$work"
      apt-get download -qq prometheus 2>/dev/null || {
        echo "no promtool here, and no package prometheus to take it from: apt-get update?" >&2
        exit 1
      }
      dpkg -x prometheus_*.deb prometheus && rm prometheus_*.deb
    )
  fi
  "$work/prometheus/usr/bin/promtool" "$@"
}

promtool check rules config/alerts.yml
promtool test rules tests/monitoring/alerts.test.yml

# The dashboard's queries as recording rules, with what Grafana puts in for its variables.
python3 tests/monitoring/queries.py config/grafana-dashboard.json >"$work/queries.yml"
promtool check rules "$work/queries.yml"

if [ ! -x "$work/venv/bin/python" ]; then
  python3 -m venv "$work/venv"
  "$work/venv/bin/pip" install -q 'grafana-foundation-sdk==1769699998!10.1.0'
fi
"$work/venv/bin/python" tests/monitoring/read_dashboard.py config/grafana-dashboard.json
