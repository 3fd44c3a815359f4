-- SCIM: job roles, what a directory stores about users and roles and Harvest has no field for, and the views and functions
-- that a SCIM process needs. Such a process reads no table.

CREATE TABLE roster.scim_links (
    account_id   bigint      NOT NULL,
    resource     text        NOT NULL CHECK (resource IN ('User', 'Group')),
    record_id    bigint      NOT NULL,
    external_id  text        CHECK (length(external_id) BETWEEN 1 AND 255),
    user_name    text        CHECK (length(user_name) BETWEEN 1 AND 255),
    -- Empty if the directory removed it.
    display_name text        CHECK (length(display_name) <= 255),
    removed_at   timestamptz,
    version      bigint      NOT NULL DEFAULT 1,
    updated_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (account_id, resource, record_id),
    CHECK (
            removed_at > '-infinity' AND removed_at < '10001-01-01'
        AND updated_at > '-infinity' AND updated_at < '10001-01-01')
);
CREATE UNIQUE INDEX scim_links_external_id ON roster.scim_links (account_id, resource, external_id);
COMMENT ON INDEX roster.scim_links_external_id IS 'Question: which user has this externalId; also the constraint that only one has it';
CREATE UNIQUE INDEX scim_links_user_name ON roster.scim_links (account_id, resource, lower(user_name));
COMMENT ON INDEX roster.scim_links_user_name IS 'Question: which user has this userName; also the constraint that only one has it';
CREATE INDEX scim_links_removed ON roster.scim_links (account_id, record_id) WHERE removed_at IS NOT NULL;
COMMENT ON INDEX roster.scim_links_removed IS 'Question: which users did a directory delete';

COMMENT ON TABLE roster.scim_links IS 'What directories store about users and job roles by SCIM and Harvest has no field for';
COMMENT ON COLUMN roster.scim_links.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.scim_links.resource IS 'Resource type: User or Group';
COMMENT ON COLUMN roster.scim_links.record_id IS 'Harvest''s id of the user or role';
COMMENT ON COLUMN roster.scim_links.external_id IS 'externalId: the directory''s own id';
COMMENT ON COLUMN roster.scim_links.user_name IS 'userName, if it is not the e-mail address';
COMMENT ON COLUMN roster.scim_links.display_name IS 'displayName, if it is not first and last name; empty if the directory removed it';
COMMENT ON COLUMN roster.scim_links.removed_at IS 'When the directory deleted the user; SCIM does not show the user while archived';
COMMENT ON COLUMN roster.scim_links.version IS 'Incremented with each change of this row; part of the ETag';
COMMENT ON COLUMN roster.scim_links.updated_at IS 'When this row was last changed';

-- Job roles of Harvest, which SCIM shows as groups (scim.groups = "roles"). A user's own roles are in roster.users, whose
-- changes have events: this table has none.
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

CREATE VIEW roster.scim_users AS
    SELECT users.account_id, users.id, users.first_name, users.last_name, users.email, users.telephone, users.is_active,
           users.created_at, users.updated_at, users.version, link.external_id, link.user_name, link.display_name,
           coalesce(link.version, 0) AS link_version, link.updated_at AS link_updated_at,
           NOT users.is_active AND removed.record_id IS NOT NULL AS is_hidden
      FROM roster.users
      LEFT JOIN roster.scim_links AS link
        ON link.account_id = users.account_id AND link.resource = 'User' AND link.record_id = users.id
      -- Once more, so that a list without other columns of the links reads only the index of removed users.
      LEFT JOIN roster.scim_links AS removed
        ON removed.account_id = users.account_id AND removed.resource = 'User' AND removed.record_id = users.id
           AND removed.removed_at IS NOT NULL
     WHERE users.deleted_at IS NULL;
COMMENT ON VIEW roster.scim_users IS 'Users as SCIM shows them: without pay data, other fields of Harvest and deleted users; is_hidden for users whom a directory deleted';

COMMENT ON COLUMN roster.scim_users.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.scim_users.id IS 'Harvest''s id of the user';
COMMENT ON COLUMN roster.scim_users.first_name IS 'First name';
COMMENT ON COLUMN roster.scim_users.last_name IS 'Last name';
COMMENT ON COLUMN roster.scim_users.email IS 'E-mail address';
COMMENT ON COLUMN roster.scim_users.telephone IS 'Telephone number';
COMMENT ON COLUMN roster.scim_users.is_active IS 'Whether the user is active at Harvest (not archived)';
COMMENT ON COLUMN roster.scim_users.created_at IS 'When the user was created at Harvest';
COMMENT ON COLUMN roster.scim_users.updated_at IS 'Harvest''s time of the last change';
COMMENT ON COLUMN roster.scim_users.version IS 'Version of the row in roster.users; part of the ETag';
COMMENT ON COLUMN roster.scim_users.external_id IS 'externalId: the directory''s own id';
COMMENT ON COLUMN roster.scim_users.user_name IS 'userName, if it is not the e-mail address';
COMMENT ON COLUMN roster.scim_users.display_name IS 'displayName, if it is not first and last name';
COMMENT ON COLUMN roster.scim_users.link_version IS 'Version of the row in roster.scim_links, 0 without one; part of the ETag';
COMMENT ON COLUMN roster.scim_users.link_updated_at IS 'When the row in roster.scim_links was last changed';
COMMENT ON COLUMN roster.scim_users.is_hidden IS 'Whether a directory deleted the user, who is still archived';

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

-- A process that waits for a write is notified of its end, or that it is held.
CREATE FUNCTION roster.notify_written() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_notify('roster_written', NEW.id::text);
    RETURN NULL;
END $$;
COMMENT ON FUNCTION roster.notify_written IS 'Notifies of the end of a write';
CREATE TRIGGER writes_written AFTER UPDATE ON roster.writes FOR EACH ROW
    WHEN (OLD.done_at IS NULL AND NEW.done_at IS NOT NULL OR OLD.held_at IS NULL AND NEW.held_at IS NOT NULL)
    EXECUTE FUNCTION roster.notify_written();

CREATE FUNCTION roster.scim_account(account bigint, OUT is_read boolean, OUT are_roles_read boolean, OUT has_holder boolean,
                                    OUT pause_seconds integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT (SELECT count(*) = 2 FROM roster.watermarks WHERE account_id = $1 AND watermark IS NOT NULL),
           EXISTS (SELECT FROM roster.accounts WHERE account_id = $1 AND roles_read_at IS NOT NULL),
           EXISTS (SELECT FROM roster.accounts JOIN roster.replicas ON replicas.id = holder
                    WHERE account_id = $1 AND expires_at > clock_timestamp()),
           (SELECT coalesce(ceil(extract(epoch FROM max(paused_until) - clock_timestamp())), 0)::integer
              FROM roster.rate_budgets)
$$;
COMMENT ON FUNCTION roster.scim_account IS 'Whether the first full read of an account is complete, whether its job roles were read, whether a process holds its lease, and how long Harvest refuses requests';

-- The actor is a token's name. A person's actor, cli:…, is out of reach.
CREATE FUNCTION roster.scim_ask(account bigint, token text, kind text, record_id bigint, wanted jsonb) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF token !~ '^[A-Za-z0-9._-]{1,64}$' OR kind !~ '^(user|role)_' THEN
        RAISE EXCEPTION 'a SCIM token requests writes of users and job roles in its own name' USING ERRCODE = '22023';
    END IF;
    -- A deactivation always passes: two of one user become one write, so that their number has a limit.
    IF kind <> 'user_deactivate'
       AND (SELECT count(*) FROM roster.writes WHERE account_id = account AND done_at IS NULL) >= 500 THEN
        RAISE EXCEPTION '500 writes of the account are open' USING ERRCODE = '53400';
    END IF;
    RETURN roster.write_insert(account, kind, CASE WHEN kind LIKE 'user%' THEN record_id END, NULL, NULL, wanted,
                               'scim:' || token, CASE WHEN kind LIKE 'role%' THEN record_id END);
END $$;
COMMENT ON FUNCTION roster.scim_ask IS 'Requests a write of a user or a job role in the name of a SCIM token, and returns its id';

CREATE FUNCTION roster.scim_withdraw(write uuid, token text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH withdrawn AS (
        UPDATE roster.writes SET done_at = clock_timestamp(), outcome = 'withdrawn', wanted = NULL, email_key = NULL
         WHERE id = $1 AND actor = 'scim:' || $2 AND askers = 1 AND sent_at IS NULL AND done_at IS NULL
           AND kind <> 'user_deactivate'
        RETURNING 1
    )
    SELECT EXISTS (SELECT FROM withdrawn)
$$;
COMMENT ON FUNCTION roster.scim_withdraw IS 'Withdraws a write of a SCIM token that was not sent; false if it is too late, if another actor joined it, or for a deactivation, which must not be lost';

CREATE FUNCTION roster.scim_answered(write uuid, token text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE roster.writes SET answered_at = clock_timestamp() WHERE id = $1 AND actor = 'scim:' || $2 AND answered_at IS NULL
$$;
COMMENT ON FUNCTION roster.scim_answered IS 'Records that a SCIM client received the result of a write';

CREATE FUNCTION roster.scim_unanswered(account bigint, token text, user_id bigint) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT id FROM roster.writes
     WHERE account_id = $1 AND writes.user_id = $3 AND kind IN ('user_create', 'user_reactivate') AND outcome = 'done'
       AND actor = 'scim:' || $2 AND answered_at IS NULL AND done_at > clock_timestamp() - interval '1 day'
     ORDER BY done_at DESC LIMIT 1
$$;
COMMENT ON FUNCTION roster.scim_unanswered IS 'The write of a SCIM token that created or reactivated this user within a day, and whose client did not receive the result';

-- `changes` has the new values by column; null clears, and absent columns stay. `removed` sets or clears removed_at.
CREATE FUNCTION roster.scim_link_set(account bigint, resource text, record_id bigint, changes jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    -- Users whom SCIM does not show keep no name that another user needs.
    UPDATE roster.scim_links AS other
       SET external_id = nullif(external_id, $4 ->> 'external_id'), version = version + 1, updated_at = clock_timestamp(),
           user_name = CASE WHEN lower(user_name) = lower($4 ->> 'user_name') THEN NULL ELSE user_name END
     WHERE $2 = 'User' AND account_id = $1 AND other.resource = $2 AND other.record_id <> $3
       AND (external_id = $4 ->> 'external_id' OR lower(user_name) = lower($4 ->> 'user_name'))
       AND NOT EXISTS (SELECT FROM roster.scim_users AS shown
                        WHERE shown.account_id = $1 AND shown.id = other.record_id AND NOT shown.is_hidden);
    INSERT INTO roster.scim_links AS link (account_id, resource, record_id, external_id, user_name, display_name, removed_at)
    SELECT $1, $2, $3, $4 ->> 'external_id', $4 ->> 'user_name', $4 ->> 'display_name',
           CASE WHEN $4 -> 'removed' = 'true' THEN clock_timestamp() END
     WHERE jsonb_strip_nulls($4) - 'removed' <> '{}' OR $4 -> 'removed' = 'true'
        OR EXISTS (SELECT FROM roster.scim_links AS known WHERE account_id = $1 AND known.resource = $2 AND known.record_id = $3)
    ON CONFLICT (account_id, resource, record_id) DO UPDATE
       SET external_id = CASE WHEN $4 ? 'external_id' THEN excluded.external_id ELSE link.external_id END,
           user_name = CASE WHEN $4 ? 'user_name' THEN excluded.user_name ELSE link.user_name END,
           display_name = CASE WHEN $4 ? 'display_name' THEN excluded.display_name ELSE link.display_name END,
           removed_at = CASE WHEN $4 ? 'removed' THEN excluded.removed_at ELSE link.removed_at END,
           version = link.version + 1, updated_at = clock_timestamp()
     WHERE $4 ? 'external_id' AND excluded.external_id IS DISTINCT FROM link.external_id
        OR $4 ? 'user_name' AND excluded.user_name IS DISTINCT FROM link.user_name
        OR $4 ? 'display_name' AND excluded.display_name IS DISTINCT FROM link.display_name
        OR $4 ? 'removed' AND (excluded.removed_at IS NULL) <> (link.removed_at IS NULL)
$$;
COMMENT ON FUNCTION roster.scim_link_set IS 'Sets what a directory stores about a user or a job role';

REVOKE ALL ON FUNCTION roster.notify_written, roster.scim_account, roster.scim_ask, roster.scim_withdraw, roster.scim_answered,
                       roster.scim_unanswered, roster.scim_link_set FROM PUBLIC;
