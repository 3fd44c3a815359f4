-- Publishes the outbox for logical replication: for Debezium, a subscription of another PostgreSQL, or another reader
-- of pgoutput. Consumers that use outbox_fetch do not need it; docs/CONNECTORS.md compares both. Run it with the
-- daemon's login, which owns the table and may create objects in the database, or as a superuser. It can run
-- repeatedly:
--
--     psql "$DATABASE_URL" --set ON_ERROR_STOP=1 --file deploy/publication.sql
--
-- This is not a migration, because the deployment decides what leaves the database. If a right is absent, or a
-- publication with this name exists, the daemon must still start.
--
-- A reader needs its own login. A login does not inherit REPLICATION from a role. It can read the WAL of the whole
-- server, so do not share it. roster_consumer lets it read the existing events at its start:
--
--     CREATE ROLE connector LOGIN REPLICATION PASSWORD '…' IN ROLE roster_consumer;
--
-- The server needs wal_level = logical (with a restart), and a limit for the log that an inactive reader retains:
--
--     ALTER SYSTEM SET wal_level = logical;
--     ALTER SYSTEM SET max_slot_wal_keep_size = '10GB';

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'roster_outbox') THEN
        -- Inserts only, so that each event is published once. Deletes by retention are not events, and an update by
        -- `rosterd forget` would look like a new event.
        CREATE PUBLICATION roster_outbox FOR TABLE roster.outbox WITH (publish = 'insert');
        COMMENT ON PUBLICATION roster_outbox IS 'rosterd: events of roster.outbox, including pay data';
    END IF;
END
$$;
