"""Runs scim2-tester on a SCIM endpoint and compares its results with the expected ones: better ones differ too.

python conformance.py URL TOKEN EXPECTED.json
"""

import json
import random
import sys
from collections import Counter

from httpx2 import Client
from scim2_client.engines.httpx2 import SyncSCIMClient
from scim2_tester import check_server

url, token, expected_file = sys.argv[1:]
random.seed(7)
client = Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
results = check_server(SyncSCIMClient(client))
for result in results:
    if result.status.name != "SUCCESS":
        print(result.status.name, result.title, result.resource_type, result.reason)
found = Counter((it.title, str(it.resource_type), it.status.name) for it in results)
with open(expected_file) as file:
    document = json.load(file)
expected = Counter()
for row in document["results"]:
    expected[(row["title"], str(row["resource_type"]), row["status"])] += row["number"]
for kind, difference in (("not expected", found - expected), ("absent", expected - found)):
    for row, number in sorted(difference.items()):
        print(f"{kind}: {number} × {row}")
print(f"{len(results)} results: {dict(Counter(it.status.name for it in results))}")
sys.exit(found != expected)
