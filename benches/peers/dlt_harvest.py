"""Reads users and assignments from Harvest into PostgreSQL with dlt: the pipeline of `cargo bench -- peers`.

The first run reads all records; later runs request only those with a newer `updated_at`.
"""

import os

import dlt
from dlt.sources.rest_api import rest_api_source

source = rest_api_source(
    {
        "client": {
            "base_url": os.environ["HARVEST_BASE_URL"],
            "headers": {"Harvest-Account-Id": os.environ["HARVEST_ACCOUNT_ID"], "User-Agent": "bench"},
            "auth": {"type": "bearer", "token": os.environ["HARVEST_ACCESS_TOKEN"]},
            "paginator": {"type": "json_link", "next_url_path": "links.next"},
        },
        "resource_defaults": {"primary_key": "id", "write_disposition": "merge"},
        "resources": [
            {
                "name": name,
                "endpoint": {
                    "path": name,
                    "data_selector": name,
                    "incremental": {
                        "cursor_path": "updated_at",
                        "start_param": "updated_since",
                        "initial_value": "1970-01-01T00:00:00Z",
                    },
                },
            }
            for name in ("users", "user_assignments")
        ],
    }
)
pipeline = dlt.pipeline(
    pipeline_name="harvest",
    destination=dlt.destinations.postgres(os.environ["DATABASE_URL"]),
    dataset_name="harvest",
)
pipeline.run(source)
