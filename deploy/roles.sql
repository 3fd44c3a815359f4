-- Database roles for rosterd. Run it as a superuser, or as the database's owner with CREATEROLE (from PostgreSQL 16 on:
-- as the user who ran it first on this server, because roles belong to the server):
--
--     psql "$ADMIN_URL" --set ON_ERROR_STOP=1 --single-transaction --file deploy/roles.sql
--
-- Run it once, before or after the first migration: each later migration grants the roles their rights on new objects.
-- Run it again after an upgrade that changed this file; it can run repeatedly. The roles cannot log in and have no
-- password. Create logins as members:
--
--     CREATE ROLE rosterd LOGIN PASSWORD '…' IN ROLE rosterd_writer;
--     ALTER ROLE rosterd SET role = rosterd_writer;  -- the role owns what the login creates, so logins can be replaced
--     CREATE ROLE bi LOGIN PASSWORD '…' IN ROLE roster_reader;
--     CREATE ROLE onboarding LOGIN PASSWORD '…' IN ROLE roster_provisioner;  -- docs/WRITES.md
--     CREATE ROLE scim LOGIN PASSWORD '…' IN ROLE roster_scim;
--
-- rosterd_writer      the daemon: owns the schemas roster, directory and rosterd_internal and all their objects
-- roster_reader       reads schema directory (users and teams without pay data) and calls its functions to follow events
-- roster_consumer     a reader that also reads the outbox with pay data, through its functions
-- roster_auditor      reads all tables and views except roster.budget_salt, calls the two functions for past states, and
--                     changes nothing
-- roster_provisioner  requests writes to Harvest, reads their results and withdraws them, through three functions; reads
--                     no table
-- roster_scim         `rosterd scim`: reads a view of users and one of groups, and calls the functions of SCIM; reads no table
--
-- A connector that reads the log (docs/CONNECTORS.md) is a consumer with REPLICATION, which is not inherited from a
-- role:
--
--     CREATE ROLE connector LOGIN REPLICATION PASSWORD '…' IN ROLE roster_consumer;

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['rosterd_writer', 'roster_reader', 'roster_consumer', 'roster_auditor',
                                  'roster_provisioner', 'roster_scim'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
    -- Only a superuser can transfer ownership to a role that it is not a member of.
    IF NOT pg_has_role('rosterd_writer', 'USAGE') THEN
        EXECUTE format('GRANT rosterd_writer TO %I', current_user);
    END IF;
    -- Migrations create schemas, and PostgreSQL requires this right even if the schema exists.
    EXECUTE format('GRANT CREATE ON DATABASE %I TO rosterd_writer', current_database());
END
$$;

COMMENT ON ROLE rosterd_writer IS 'rosterd: the daemon; owns mirror and outbox';
COMMENT ON ROLE roster_reader IS 'rosterd: reads users and teams, without pay data';
COMMENT ON ROLE roster_consumer IS 'rosterd: reads the outbox, including pay data';
COMMENT ON ROLE roster_auditor IS 'rosterd: reads everything';
COMMENT ON ROLE roster_provisioner IS 'rosterd: requests writes to Harvest';
COMMENT ON ROLE roster_scim IS 'rosterd: serves SCIM';
GRANT roster_reader TO roster_consumer;

-- Also before the first migration, because default privileges are granted per schema.
CREATE SCHEMA IF NOT EXISTS roster AUTHORIZATION rosterd_writer;
CREATE SCHEMA IF NOT EXISTS directory AUTHORIZATION rosterd_writer;
CREATE SCHEMA IF NOT EXISTS rosterd_internal AUTHORIZATION rosterd_writer;
COMMENT ON SCHEMA directory IS 'rosterd: users, project teams and their changes for readers, without pay data';
COMMENT ON SCHEMA rosterd_internal IS 'rosterd: applied migrations';

-- Grants readers their rights on existing objects. `rosterd migrate` calls it after each migration, as the schemas'
-- owner. It runs with its caller's rights, and only the owner may call it.
CREATE OR REPLACE FUNCTION rosterd_internal.grant_rights() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    thing text;
BEGIN
    GRANT USAGE ON SCHEMA directory TO roster_reader, roster_auditor;
    GRANT USAGE ON SCHEMA roster TO roster_consumer, roster_auditor, roster_provisioner, roster_scim;
    GRANT USAGE ON SCHEMA rosterd_internal TO roster_auditor;
    GRANT SELECT ON ALL TABLES IN SCHEMA directory TO roster_reader, roster_auditor;
    -- Includes roster.credentials: its tokens are encrypted with a key that is not in the database, and an auditor may
    -- see when they were renewed.
    GRANT SELECT ON ALL TABLES IN SCHEMA roster, rosterd_internal TO roster_auditor;
    REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA roster, directory, rosterd_internal FROM PUBLIC;
    GRANT EXECUTE ON ALL ROUTINES IN SCHEMA directory TO roster_reader;
    FOR thing IN
        -- With the salt, an auditor could test guesses of a token.
        SELECT 'REVOKE SELECT ON roster.budget_salt FROM roster_auditor' WHERE to_regclass('roster.budget_salt') IS NOT NULL
        UNION ALL
        -- In schema roster a consumer gets rights on these objects only.
        SELECT format('GRANT SELECT ON %I.%I TO roster_consumer', schemaname, tablename) FROM pg_tables
         WHERE schemaname = 'roster' AND tablename IN ('outbox', 'outbox_head', 'consumers')
        UNION ALL
        SELECT format('GRANT EXECUTE ON ROUTINE %s TO roster_consumer', pg_proc.oid::regprocedure)
          FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace
         WHERE nspname = 'roster' AND proname IN ('outbox_fetch', 'outbox_ack', 'outbox_start', 'snapshot_position')
        UNION ALL
        -- Not write_insert, which takes any actor: rosterd treats the actor 'cli:…' as a person.
        SELECT format('GRANT EXECUTE ON ROUTINE %s TO roster_provisioner', pg_proc.oid::regprocedure)
          FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace
         WHERE nspname = 'roster' AND proname IN ('write_ask', 'write_outcome', 'write_withdraw')
        UNION ALL
        SELECT format('GRANT SELECT ON %s TO roster_scim', to_regclass(name))
          FROM unnest('{roster.scim_users, roster.scim_groups}'::text[]) AS name WHERE to_regclass(name) IS NOT NULL
        UNION ALL
        SELECT format('GRANT EXECUTE ON ROUTINE %s TO roster_scim', pg_proc.oid::regprocedure)
          FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace
         WHERE nspname = 'roster' AND proname IN ('write_outcome', 'scim_account', 'scim_ask', 'scim_withdraw', 'scim_answered',
                                                  'scim_unanswered', 'scim_link_set')
        UNION ALL
        -- Auditors may query past states.
        SELECT format('GRANT EXECUTE ON ROUTINE %s TO roster_auditor', pg_proc.oid::regprocedure)
          FROM pg_proc JOIN pg_namespace AS space ON space.oid = pronamespace
         WHERE nspname = 'directory' AND proname IN ('users_as_of', 'assignments_as_of')
    LOOP
        EXECUTE thing;
    END LOOP;
END
$$;

-- If the daemon ran as another user before, that user owns its objects: transfer them.
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
           -- The sequence of an identity column follows its table.
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

-- Rights on objects that are created without a migration.
ALTER DEFAULT PRIVILEGES FOR ROLE rosterd_writer REVOKE EXECUTE ON ROUTINES FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE rosterd_writer IN SCHEMA directory GRANT SELECT ON TABLES TO roster_reader, roster_auditor;
ALTER DEFAULT PRIVILEGES FOR ROLE rosterd_writer IN SCHEMA directory GRANT EXECUTE ON ROUTINES TO roster_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE rosterd_writer IN SCHEMA roster GRANT SELECT ON TABLES TO roster_auditor;
ALTER DEFAULT PRIVILEGES FOR ROLE rosterd_writer IN SCHEMA rosterd_internal GRANT SELECT ON TABLES TO roster_auditor;

SELECT rosterd_internal.grant_rights();
