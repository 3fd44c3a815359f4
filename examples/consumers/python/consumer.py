"""Keeps the table review.people equal to the users of the mirror, event by event.

DATABASE_URL=postgres://… python consumer.py

An event and its acknowledgement are one transaction, so a crash loses no event and applies none twice.
"""

import os

import psycopg
from psycopg.rows import dict_row

NAME = os.environ.get("CONSUMER", "people-copy")

TABLE = """
    CREATE TABLE IF NOT EXISTS review.people (
        account_id bigint, user_id bigint, version bigint NOT NULL, email text, is_active bool NOT NULL,
        PRIMARY KEY (account_id, user_id))
"""
COPY = """
    INSERT INTO review.people SELECT account_id, id, version, email, is_active FROM directory.users
    UNION ALL SELECT account_id, id, version, email, false FROM directory.deleted_users
"""
APPLY = """
    INSERT INTO review.people AS mine VALUES (%(account_id)s, %(record_id)s, %(version)s, %(email)s, %(is_active)s)
    ON CONFLICT (account_id, user_id) DO UPDATE
       SET version = excluded.version, email = excluded.email, is_active = excluded.is_active
     WHERE mine.version < excluded.version
"""


def is_registered(db):
    return db.execute("SELECT FROM directory.consumers WHERE name = %s", [NAME]).fetchone() is not None


def load(db):
    """Copies the current state, and begins after the last event that it includes."""
    with db.transaction():
        db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        db.execute("DELETE FROM review.people")
        db.execute(COPY)
        db.execute("SELECT directory.outbox_start(%s, seq) FROM directory.snapshot_position()", [NAME])
    print("loaded", flush=True)


def apply(db, event):
    if event["aggregatetype"] != "user":
        return
    before, after = event["payload"]["before"], event["payload"]["after"]
    # A deleted user has no state after the event. The copy keeps the last values, as the mirror does.
    state = after or {**(before or {}), "is_active": False}
    db.execute(APPLY, {**event, "email": state.get("email"), "is_active": state["is_active"]})


def apply_batch(db):
    """Applies and acknowledges the next events in one transaction. Returns their number."""
    with db.transaction():
        events = db.execute("SELECT * FROM directory.outbox_fetch(%s, 500)", [NAME]).fetchall()
        for event in events:
            apply(db, event)
        if events:
            db.execute("SELECT directory.outbox_ack(%s, %s)", [NAME, events[-1]["seq"]])
    return len(events)


def main():
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, row_factory=dict_row) as db:
        db.execute(TABLE)
        db.execute("LISTEN roster_outbox")
        if not is_registered(db):
            load(db)
        while True:
            try:
                applied = apply_batch(db)
            except psycopg.Error as error:
                if error.sqlstate != "RS001":  # events were lost, for example by a restore
                    raise
                load(db)
                continue
            if applied:
                print("applied", applied, flush=True)
            else:
                # A notification can be lost, so look every ten seconds anyway.
                list(db.notifies(timeout=10, stop_after=1))


main()
