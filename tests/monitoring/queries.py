"""Prints the queries of a Grafana dashboard as recording rules, so that promtool parses them."""

import json
import sys


def main():
    with open(sys.argv[1]) as file:
        dashboard = json.load(file)
    rules = []
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*")
            assert "$" not in query, query
            rules.append({"record": f"panel{panel['id']}:{target['refId']}", "expr": query})
    assert rules, "a dashboard without queries"
    # JSON is YAML.
    print(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}, indent=1))


main()
