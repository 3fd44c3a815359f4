-- SCIM: what a directory stores about users and Harvest has no field for, and the view and functions that a SCIM process
-- needs. Such a process reads no table.

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
CREATE INDEX writes_created ON roster.writes (account_id, user_id) WHERE kind IN ('user_create', 'user_reactivate');
COMMENT ON INDEX roster.writes_created IS 'Question: which write created or reactivated this user';

COMMENT ON TABLE roster.scim_links IS 'What directories store about users by SCIM and Harvest has no field for';
COMMENT ON COLUMN roster.scim_links.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.scim_links.resource IS 'Resource type: User or Group';
COMMENT ON COLUMN roster.scim_links.record_id IS 'Harvest''s id of the user';
COMMENT ON COLUMN roster.scim_links.external_id IS 'externalId: the directory''s own id';
COMMENT ON COLUMN roster.scim_links.user_name IS 'userName, if it is not the e-mail address';
COMMENT ON COLUMN roster.scim_links.display_name IS 'displayName, if it is not first and last name; empty if the directory removed it';
COMMENT ON COLUMN roster.scim_links.removed_at IS 'When the directory deleted the user; SCIM does not show the user while archived';
COMMENT ON COLUMN roster.scim_links.version IS 'Incremented with each change of this row; part of the ETag';
COMMENT ON COLUMN roster.scim_links.updated_at IS 'When this row was last changed';

ALTER TABLE roster.writes ADD COLUMN answered_at timestamptz;
COMMENT ON COLUMN roster.writes.answered_at IS 'When a SCIM client received the result of a creation or reactivation; null before, and for all other writes';
COMMENT ON COLUMN roster.writes.actor IS 'Who asked: cli:LOGIN@HOST, reconcile:LOGIN@HOST, scim:TOKENNAME or sql:LOGIN';

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

CREATE FUNCTION roster.scim_account(account bigint, OUT is_read boolean, OUT has_holder boolean, OUT pause_seconds integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT (SELECT count(*) = 2 FROM roster.watermarks WHERE account_id = $1 AND watermark IS NOT NULL),
           EXISTS (SELECT FROM roster.accounts JOIN roster.replicas ON replicas.id = holder
                    WHERE account_id = $1 AND expires_at > clock_timestamp()),
           (SELECT coalesce(ceil(extract(epoch FROM max(paused_until) - clock_timestamp())), 0)::integer
              FROM roster.rate_budgets)
$$;
COMMENT ON FUNCTION roster.scim_account IS 'Whether the first full read of an account is complete, whether a process holds its lease, and how long Harvest refuses requests';

-- The actor is a token's name. A person's actor, cli:…, is out of reach.
CREATE FUNCTION roster.scim_ask(account bigint, token text, kind text, user_id bigint, wanted jsonb) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    IF token !~ '^[A-Za-z0-9._-]{1,64}$' OR kind NOT LIKE 'user\_%' THEN
        RAISE EXCEPTION 'a SCIM token requests writes of users in its own name' USING ERRCODE = '22023';
    END IF;
    -- A deactivation always passes: two of one user become one write, so that their number has a limit.
    IF kind <> 'user_deactivate'
       AND (SELECT count(*) FROM roster.writes WHERE account_id = account AND done_at IS NULL) >= 500 THEN
        RAISE EXCEPTION '500 writes of the account are open' USING ERRCODE = '53400';
    END IF;
    RETURN roster.write_insert(account, kind, user_id, NULL, NULL, wanted, 'scim:' || token);
END $$;
COMMENT ON FUNCTION roster.scim_ask IS 'Requests a write of a user in the name of a SCIM token, and returns its id';

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
CREATE FUNCTION roster.scim_link_set(account bigint, user_id bigint, changes jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    -- Users whom SCIM does not show keep no name that another user needs.
    UPDATE roster.scim_links AS other
       SET external_id = nullif(external_id, $3 ->> 'external_id'), version = version + 1, updated_at = clock_timestamp(),
           user_name = CASE WHEN lower(user_name) = lower($3 ->> 'user_name') THEN NULL ELSE user_name END
     WHERE account_id = $1 AND resource = 'User' AND record_id <> $2
       AND (external_id = $3 ->> 'external_id' OR lower(user_name) = lower($3 ->> 'user_name'))
       AND NOT EXISTS (SELECT FROM roster.scim_users AS shown
                        WHERE shown.account_id = $1 AND shown.id = record_id AND NOT shown.is_hidden);
    INSERT INTO roster.scim_links AS link (account_id, resource, record_id, external_id, user_name, display_name, removed_at)
    SELECT $1, 'User', $2, $3 ->> 'external_id', $3 ->> 'user_name', $3 ->> 'display_name',
           CASE WHEN $3 -> 'removed' = 'true' THEN clock_timestamp() END
     WHERE jsonb_strip_nulls($3) - 'removed' <> '{}' OR $3 -> 'removed' = 'true'
        OR EXISTS (SELECT FROM roster.scim_links WHERE account_id = $1 AND resource = 'User' AND record_id = $2)
    ON CONFLICT (account_id, resource, record_id) DO UPDATE
       SET external_id = CASE WHEN $3 ? 'external_id' THEN excluded.external_id ELSE link.external_id END,
           user_name = CASE WHEN $3 ? 'user_name' THEN excluded.user_name ELSE link.user_name END,
           display_name = CASE WHEN $3 ? 'display_name' THEN excluded.display_name ELSE link.display_name END,
           removed_at = CASE WHEN $3 ? 'removed' THEN excluded.removed_at ELSE link.removed_at END,
           version = link.version + 1, updated_at = clock_timestamp()
     WHERE $3 ? 'external_id' AND excluded.external_id IS DISTINCT FROM link.external_id
        OR $3 ? 'user_name' AND excluded.user_name IS DISTINCT FROM link.user_name
        OR $3 ? 'display_name' AND excluded.display_name IS DISTINCT FROM link.display_name
        OR $3 ? 'removed' AND (excluded.removed_at IS NULL) <> (link.removed_at IS NULL)
$$;
COMMENT ON FUNCTION roster.scim_link_set IS 'Sets what a directory stores about a user';

REVOKE ALL ON FUNCTION roster.notify_written, roster.scim_account, roster.scim_ask, roster.scim_withdraw, roster.scim_answered,
                       roster.scim_unanswered, roster.scim_link_set FROM PUBLIC;
