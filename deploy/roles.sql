-- Who may do what in rosterd's database. For a superuser, or for the database's owner where that has CREATEROLE (from
-- PostgreSQL 16 on: for whoever ran it first on this server, as roles are the server's):
--
--     psql "$ADMIN_URL" --set ON_ERROR_STOP=1 --single-transaction --file deploy/roles.sql
--
-- Once is enough, before the first migration or after it: each later run of the migrations gives the roles their rights on
-- what is new. Run it again after an upgrade that changed this file; to run it once more changes nothing. None of these roles
-- can log in, and no password is here. People and services are made members:
--
--     CREATE ROLE rosterd LOGIN PASSWORD '…' IN ROLE rosterd_writer;
--     ALTER ROLE rosterd SET role = rosterd_writer;  -- what it creates belongs to the role, whoever the next login is
--     CREATE ROLE bi LOGIN PASSWORD '…' IN ROLE roster_reader;
--
-- rosterd_writer   the daemon: owns the schemas roster, directory and rosterd_internal, and all that is in them
-- roster_reader    the schema directory: people and teams without pay, and its functions for following their events
-- roster_consumer  a reader that also follows the outbox itself, pay included, by its functions
-- roster_auditor   reads every table and view but roster.budget_salt, calls the two functions that read the past, and
--                  changes nothing
--
-- An engine that reads the log (docs/ENGINES.md) is a consumer with REPLICATION, which no role passes on:
--
--     CREATE ROLE engine LOGIN REPLICATION PASSWORD '…' IN ROLE roster_consumer;

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['rosterd_writer', 'roster_reader', 'roster_consumer', 'roster_auditor'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
    -- Whoever is no superuser can hand something over only to a role that is also its own.
    IF NOT pg_has_role('rosterd_writer', 'USAGE') THEN
        EXECUTE format('GRANT rosterd_writer TO %I', current_user);
    END IF;
    -- Migrations make schemas, and PostgreSQL asks for this right even where the schema is there.
    EXECUTE format('GRANT CREATE ON DATABASE %I TO rosterd_writer', current_database());
END
$$;

COMMENT ON ROLE rosterd_writer IS 'rosterd: the daemon, which owns the mirror and the outbox';
COMMENT ON ROLE roster_reader IS 'rosterd: reads people and teams, without pay';
COMMENT ON ROLE roster_consumer IS 'rosterd: follows the outbox, pay included';
COMMENT ON ROLE roster_auditor IS 'rosterd: reads everything';
GRANT roster_reader TO roster_consumer;

-- Before the first migration too: what is granted for later objects is granted within a schema.
CREATE SCHEMA IF NOT EXISTS roster AUTHORIZATION rosterd_writer;
CREATE SCHEMA IF NOT EXISTS directory AUTHORIZATION rosterd_writer;
CREATE SCHEMA IF NOT EXISTS rosterd_internal AUTHORIZATION rosterd_writer;
COMMENT ON SCHEMA directory IS 'rosterd: what ordinary readers get: people, teams and their events, without pay';
COMMENT ON SCHEMA rosterd_internal IS 'rosterd: which migrations have been applied';

-- The rights of readers on what there is. `rosterd migrate` calls this after each migration, as the schemas' owner. It is run
-- with its caller's rights, and only the owner may call it.
CREATE OR REPLACE FUNCTION rosterd_internal.grant_rights() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    thing text;
BEGIN
    GRANT USAGE ON SCHEMA directory TO roster_reader, roster_auditor;
    GRANT USAGE ON SCHEMA roster TO roster_consumer, roster_auditor;
    GRANT USAGE ON SCHEMA rosterd_internal TO roster_auditor;
    GRANT SELECT ON ALL TABLES IN SCHEMA directory TO roster_reader, roster_auditor;
    -- roster.credentials among them: its tokens are sealed with a key that is not in the database, and when they were
    -- renewed is an auditor's business.
    GRANT SELECT ON ALL TABLES IN SCHEMA roster, rosterd_internal TO roster_auditor;
    REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA roster, directory, rosterd_internal FROM PUBLIC;
    GRANT EXECUTE ON ALL ROUTINES IN SCHEMA directory TO roster_reader;
    FOR thing IN
        -- With the salt an auditor could test whether a guess is the token of a budget.
        SELECT 'REVOKE SELECT ON roster.budget_salt FROM roster_auditor' WHERE to_regclass('roster.budget_salt') IS NOT NULL
        UNION ALL
        -- Of schema roster a consumer gets what is named here and nothing else.
        SELECT format('GRANT SELECT ON %I.%I TO roster_consumer', schemaname, tablename) FROM pg_tables
         WHERE schemaname = 'roster' AND tablename IN ('outbox', 'outbox_head', 'consumers')
        UNION ALL
        SELECT format('GRANT EXECUTE ON ROUTINE %s TO roster_consumer', pg_proc.oid::regprocedure)
          FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace
         WHERE nspname = 'roster' AND proname IN ('outbox_fetch', 'outbox_ack', 'outbox_start', 'snapshot_position')
        UNION ALL
        -- Who was an administrator on that day? The auditor's question.
        SELECT format('GRANT EXECUTE ON ROUTINE %s TO roster_auditor', pg_proc.oid::regprocedure)
          FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace
         WHERE nspname = 'directory' AND proname IN ('users_as_of', 'assignments_as_of')
    LOOP
        EXECUTE thing;
    END LOOP;
END
$$;

-- A daemon that ran as somebody else until now has left its things to that user.
DO $$
DECLARE
    thing text;
BEGIN
    FOR thing IN
        SELECT format('SCHEMA %I', nspname) FROM pg_namespace
         WHERE nspname IN ('roster', 'directory', 'rosterd_internal') AND nspowner <> 'rosterd_writer'::regrole
        UNION ALL
        SELECT format('%s %I.%I', CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
                                               WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, nspname, relname)
          FROM pg_class AS class JOIN pg_namespace AS space ON space.oid = relnamespace
         WHERE nspname IN ('roster', 'directory', 'rosterd_internal') AND relowner <> 'rosterd_writer'::regrole
           AND relkind IN ('r', 'p', 'v', 'm', 'S')
           -- The sequence of an identity column goes with its table.
           AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = class.oid AND classid = 'pg_class'::regclass
                                                   AND deptype IN ('a', 'i') AND relkind = 'S')
        UNION ALL
        SELECT format('ROUTINE %s', pg_proc.oid::regprocedure)
          FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace
         WHERE nspname IN ('roster', 'directory', 'rosterd_internal') AND proowner <> 'rosterd_writer'::regrole
    LOOP
        EXECUTE format('ALTER %s OWNER TO rosterd_writer', thing);
    END LOOP;
END
$$;

-- What is created without a migration has these rights from the start.
ALTER DEFAULT PRIVILEGES FOR ROLE rosterd_writer REVOKE EXECUTE ON ROUTINES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE rosterd_writer IN SCHEMA directory GRANT SELECT ON TABLES TO roster_reader, roster_auditor;
ALTER DEFAULT PRIVILEGES FOR ROLE rosterd_writer IN SCHEMA directory GRANT EXECUTE ON ROUTINES TO roster_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE rosterd_writer IN SCHEMA roster GRANT SELECT ON TABLES TO roster_auditor;
ALTER DEFAULT PRIVILEGES FOR ROLE rosterd_writer IN SCHEMA rosterd_internal GRANT SELECT ON TABLES TO roster_auditor;

SELECT rosterd_internal.grant_rights();
