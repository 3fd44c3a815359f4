-- Job roles of Harvest, which SCIM shows as groups (scim.groups = "roles"), and the writes that change them. A user's own
-- roles are in roster.users, whose changes have events: this table has none.

CREATE TABLE roster.roles (
    account_id bigint      NOT NULL,
    id         bigint      NOT NULL,
    name       text        NOT NULL,
    user_ids   bigint[]    NOT NULL,
    created_at timestamptz,
    updated_at timestamptz,
    version    bigint      NOT NULL DEFAULT 1,
    changed_at timestamptz NOT NULL,
    asked_at   timestamptz NOT NULL,
    deleted_at timestamptz,
    PRIMARY KEY (account_id, id),
    CHECK (
            created_at > '-infinity' AND created_at < '10001-01-01'
        AND updated_at > '-infinity' AND updated_at < '10001-01-01'
        AND changed_at > '-infinity' AND changed_at < '10001-01-01'
        AND asked_at > '-infinity' AND asked_at < '10001-01-01'
        AND deleted_at > '-infinity' AND deleted_at < '10001-01-01')
);
COMMENT ON TABLE roster.roles IS 'Job roles of Harvest, for SCIM groups only: read if scim.groups has roles. Changes have no events; a user''s roles are in roster.users';
COMMENT ON COLUMN roster.roles.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.roles.id IS 'Harvest''s id of the role';
COMMENT ON COLUMN roster.roles.name IS 'Name of the role';
COMMENT ON COLUMN roster.roles.user_ids IS 'Users who have the role, archived ones included';
COMMENT ON COLUMN roster.roles.created_at IS 'When the role was created at Harvest';
COMMENT ON COLUMN roster.roles.updated_at IS 'Harvest''s time of the last change; a change of users does not change it';
COMMENT ON COLUMN roster.roles.version IS 'Incremented with each change of this row; part of the ETag';
COMMENT ON COLUMN roster.roles.changed_at IS 'When rosterd stored the last change; at first, updated_at';
COMMENT ON COLUMN roster.roles.asked_at IS 'When the request was sent whose answer is stored, or when a write was answered: an older answer does not replace it';
COMMENT ON COLUMN roster.roles.deleted_at IS 'When the deletion was confirmed by a 404; the row stays for a day';

ALTER TABLE roster.accounts ADD COLUMN roles_read_at timestamptz
    CHECK (roles_read_at > '-infinity' AND roles_read_at < '10001-01-01');
COMMENT ON COLUMN roster.accounts.roles_read_at IS 'When the list of roles was first read completely; null if it was not';

CREATE VIEW roster.scim_groups AS
    SELECT roles.account_id, roles.id, roles.name, roles.created_at, greatest(roles.updated_at, roles.changed_at) AS updated_at,
           roles.version, link.external_id, coalesce(link.version, 0) AS link_version, link.updated_at AS link_updated_at,
           roles.user_ids
      FROM roster.roles
      LEFT JOIN roster.scim_links AS link
        ON link.account_id = roles.account_id AND link.resource = 'Group' AND link.record_id = roles.id
     WHERE roles.deleted_at IS NULL;
COMMENT ON VIEW roster.scim_groups IS 'Job roles as SCIM shows them, without deleted ones';
COMMENT ON COLUMN roster.scim_groups.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.scim_groups.id IS 'Harvest''s id of the role';
COMMENT ON COLUMN roster.scim_groups.name IS 'Name of the role';
COMMENT ON COLUMN roster.scim_groups.created_at IS 'When the role was created at Harvest';
COMMENT ON COLUMN roster.scim_groups.updated_at IS 'When the role or its users last changed, as far as rosterd knows';
COMMENT ON COLUMN roster.scim_groups.version IS 'Version of the row in roster.roles; part of the ETag';
COMMENT ON COLUMN roster.scim_groups.external_id IS 'externalId: the directory''s own id';
COMMENT ON COLUMN roster.scim_groups.link_version IS 'Version of the row in roster.scim_links, 0 without one; part of the ETag';
COMMENT ON COLUMN roster.scim_groups.link_updated_at IS 'When the row in roster.scim_links was last changed';
COMMENT ON COLUMN roster.scim_groups.user_ids IS 'Users who have the role, also those whom SCIM does not show';
COMMENT ON COLUMN roster.scim_links.record_id IS 'Harvest''s id of the user or role';

ALTER TABLE roster.writes ADD COLUMN role_id bigint;
COMMENT ON COLUMN roster.writes.role_id IS 'The job role; null for other writes, and for a role that does not exist yet';
-- All existing rows meet the new constraints, which allow more. Only SCIM requests writes of roles.
ALTER TABLE roster.writes DROP CONSTRAINT writes_kind_check;
ALTER TABLE roster.writes ADD CONSTRAINT writes_kind_check
    CHECK (kind IN ('user_create', 'user_update', 'user_deactivate', 'user_reactivate', 'user_delete', 'assignment_add',
                    'assignment_update', 'assignment_archive', 'assignment_remove', 'role_create', 'role_update',
                    'role_delete')) NOT VALID;
ALTER TABLE roster.writes DROP CONSTRAINT writes_check4;
ALTER TABLE roster.writes ADD CONSTRAINT writes_check4
    CHECK (CASE WHEN kind LIKE 'role%' THEN user_id IS NULL AND actor LIKE 'scim:%' AND (kind = 'role_create' OR role_id IS NOT NULL)
                ELSE kind = 'user_create' OR user_id IS NOT NULL END) NOT VALID;

-- As roster.write_insert: returns the open write that asks for the same, or inserts one, and wakes the daemon. Role writes
-- are never held, and no person accepts them.
CREATE FUNCTION roster.role_write_insert(account bigint, kind text, role_id bigint, wanted jsonb, actor text)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
#variable_conflict use_variable
DECLARE
    found uuid;
BEGIN
    IF pg_column_size(wanted) > 65536 THEN
        RAISE EXCEPTION 'the fields of a write are longer than 65536 bytes' USING ERRCODE = '22023';
    END IF;
    -- Two equal requests at the same time become one write.
    PERFORM pg_advisory_xact_lock(hashtextextended(format('rosterd.writes/%s/roles', account), 0));
    -- A creation also answers the request of a client that repeats it while it is in flight.
    SELECT open.id INTO found FROM roster.writes AS open
     WHERE open.account_id = account AND open.done_at IS NULL AND open.kind = kind
       AND open.role_id IS NOT DISTINCT FROM role_id AND open.wanted = wanted
       AND (open.sent_at IS NULL OR kind = 'role_create')
       AND NOT EXISTS (SELECT FROM roster.writes AS later
                        WHERE later.account_id = account AND later.done_at IS NULL AND later.role_id = role_id
                          AND later.asked_at > open.asked_at)
     LIMIT 1;
    IF found IS NULL THEN
        INSERT INTO roster.writes AS new (account_id, kind, role_id, wanted, fields, actor)
        VALUES (account, kind, role_id, wanted, ARRAY(SELECT jsonb_object_keys(wanted) AS key ORDER BY key), actor)
        RETURNING new.id INTO found;
    ELSE
        UPDATE roster.writes AS joined SET askers = askers + (joined.actor <> actor)::integer WHERE joined.id = found;
    END IF;
    PERFORM pg_notify('roster_write', account::text);
    RETURN found;
END $$;
COMMENT ON FUNCTION roster.role_write_insert IS 'For rosterd: requests a write of a job role in the name of an actor';

CREATE FUNCTION roster.scim_ask_role(account bigint, token text, kind text, role_id bigint, wanted jsonb) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF token !~ '^[A-Za-z0-9._-]{1,64}$' OR kind NOT LIKE 'role\_%' THEN
        RAISE EXCEPTION 'a SCIM token requests writes of roles in its own name' USING ERRCODE = '22023';
    END IF;
    IF (SELECT count(*) FROM roster.writes WHERE account_id = $1 AND done_at IS NULL) >= 500 THEN
        RAISE EXCEPTION '500 writes of the account are open' USING ERRCODE = '53400';
    END IF;
    RETURN roster.role_write_insert($1, $3, $4, $5, 'scim:' || $2);
END $$;
COMMENT ON FUNCTION roster.scim_ask_role IS 'Requests a write of a job role in the name of a SCIM token, and returns its id';

CREATE FUNCTION roster.scim_written_role(write uuid) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT role_id FROM roster.writes WHERE id = $1
$$;
COMMENT ON FUNCTION roster.scim_written_role IS 'The job role that a write has created or changed';

CREATE FUNCTION roster.scim_roles_are_read(account bigint) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM roster.accounts WHERE account_id = $1 AND roles_read_at IS NOT NULL)
$$;
COMMENT ON FUNCTION roster.scim_roles_are_read IS 'Whether the list of job roles was read completely';

CREATE FUNCTION roster.scim_group_link_set(account bigint, role_id bigint, external_id text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO roster.scim_links AS link (account_id, resource, record_id, external_id)
    SELECT $1, 'Group', $2, $3
     WHERE $3 IS NOT NULL
        OR EXISTS (SELECT FROM roster.scim_links WHERE account_id = $1 AND resource = 'Group' AND record_id = $2)
    ON CONFLICT (account_id, resource, record_id) DO UPDATE
       SET external_id = excluded.external_id, version = link.version + 1, updated_at = clock_timestamp()
     WHERE excluded.external_id IS DISTINCT FROM link.external_id
$$;
COMMENT ON FUNCTION roster.scim_group_link_set IS 'Sets or clears the externalId that a directory stores about a job role';

REVOKE ALL ON FUNCTION roster.role_write_insert, roster.scim_ask_role, roster.scim_written_role, roster.scim_roles_are_read,
                       roster.scim_group_link_set FROM PUBLIC;
