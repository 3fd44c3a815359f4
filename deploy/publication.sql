-- Publishes the outbox for logical replication: Debezium, a subscription of another PostgreSQL, or whatever else reads
-- pgoutput. Nobody needs it who follows the events by outbox_fetch; docs/ENGINES.md says when it pays. As the daemon's own
-- login, which owns the table and may create in the database, or as a superuser; to run it once more changes nothing:
--
--     psql "$DATABASE_URL" --set ON_ERROR_STOP=1 --file deploy/publication.sql
--
-- No migration makes it: what leaves the database is the deployment's business, and a database that lacks a right, or has
-- a publication of this name already, must not keep the daemon from starting.
--
-- Whoever reads it needs a login of their own. REPLICATION is not inherited from a role, and lets a login read the WAL of
-- the whole server, so give it to nobody else; roster_consumer lets it read the events that are there at its start:
--
--     CREATE ROLE engine LOGIN REPLICATION PASSWORD '…' IN ROLE roster_consumer;
--
-- The server needs wal_level = logical (a restart), and a bound on what a reader that is away may hold back:
--
--     ALTER SYSTEM SET wal_level = logical;
--     ALTER SYSTEM SET max_slot_wal_keep_size = '10GB';

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = 'roster_outbox') THEN
        -- Inserts alone: an event is told once. Retention's deletes are no news, and what rosterd forget empties in place
        -- would otherwise be told again as if it had happened.
        CREATE PUBLICATION roster_outbox FOR TABLE roster.outbox WITH (publish = 'insert');
        COMMENT ON PUBLICATION roster_outbox IS 'rosterd: every event of roster.outbox, pay included, once';
    END IF;
END
$$;
