"""Reads a dashboard into Grafana's own model of one and checks that nothing was left out on the way."""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard


def missing(before, after, path):
    """What is in the file and not in the model. Plugins' own options and queries are passed through as they are."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key not in after:
                if value not in (None, [], {}, ""):
                    yield f"{path}/{key}"
            else:
                yield from missing(value, after[key], f"{path}/{key}")
    elif isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            yield path
        for number, (one, other) in enumerate(zip(before, after)):
            yield from missing(one, other, f"{path}/{number}")
    elif before != after:
        yield path


def main():
    with open(sys.argv[1]) as file:
        before = json.load(file)
    after = json.loads(json.dumps(Dashboard.from_json(before), cls=JSONEncoder))
    lost = sorted(missing(before, after, ""))
    if lost:
        sys.exit("Grafana's model does not know:\n" + "\n".join(lost))
    print(f"{len(before['panels'])} panels, schema {before['schemaVersion']}")


main()
