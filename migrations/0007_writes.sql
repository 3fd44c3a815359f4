-- Writes to Harvest: the request, the audit and the result in one row. A row is committed before Harvest is asked. Any
-- process may insert one; only the process that holds the account's lease sends it.

CREATE TABLE roster.writes (
    id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    account_id    bigint      NOT NULL,
    kind          text        NOT NULL CHECK (kind IN ('user_create', 'user_update', 'user_deactivate', 'user_reactivate',
                                                       'user_delete', 'assignment_add', 'assignment_update',
                                                       'assignment_archive', 'assignment_remove', 'role_create',
                                                       'role_update', 'role_delete')),
    user_id       bigint,
    project_id    bigint,
    assignment_id bigint,
    role_id       bigint,
    email_key     text,
    wanted        jsonb,
    fields        text[]      NOT NULL,
    actor         text        NOT NULL CHECK (actor <> ''),
    asked_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    held_at       timestamptz,
    accepted_at   timestamptz,
    accepted_by   text        CHECK ((accepted_by IS NULL) = (accepted_at IS NULL)),
    askers        integer     NOT NULL DEFAULT 1,
    attempts      integer     NOT NULL DEFAULT 0,
    sent_at       timestamptz,
    done_at       timestamptz,
    answered_at   timestamptz,
    outcome       text        CHECK (outcome IN ('done', 'unchanged', 'planned', 'refused', 'withdrawn', 'rejected', 'lost')),
    status        smallint,
    error         text,
    CHECK ((done_at IS NULL) = (outcome IS NULL)),
    CHECK ((done_at IS NULL) = (wanted IS NOT NULL)),
    CHECK ((kind = 'user_create' AND done_at IS NULL) = (email_key IS NOT NULL)),
    -- Only SCIM requests writes of roles.
    CHECK (CASE WHEN kind LIKE 'role%' THEN user_id IS NULL AND actor LIKE 'scim:%' AND (kind = 'role_create' OR role_id IS NOT NULL)
                ELSE kind = 'user_create' OR user_id IS NOT NULL END),
    CHECK ((kind LIKE 'assignment%') = (project_id IS NOT NULL)),
    CHECK (assignment_id IS NOT NULL OR kind NOT IN ('assignment_update', 'assignment_archive', 'assignment_remove'))
);
CREATE INDEX writes_losses ON roster.writes (account_id, done_at) WHERE kind IN ('user_deactivate', 'user_delete');
COMMENT ON INDEX roster.writes_losses IS 'The daemon: users who lost access within the guard''s time';
CREATE INDEX writes_open ON roster.writes (account_id, asked_at) WHERE done_at IS NULL;
COMMENT ON INDEX roster.writes_open IS 'The daemon: the open writes of an account';
CREATE UNIQUE INDEX writes_open_email ON roster.writes (account_id, email_key);
COMMENT ON INDEX roster.writes_open_email IS 'The constraint that at most one open write creates a user with an e-mail address';
CREATE INDEX writes_created ON roster.writes (account_id, user_id) WHERE kind IN ('user_create', 'user_reactivate');
COMMENT ON INDEX roster.writes_created IS 'Question: which write created or reactivated this user';

COMMENT ON TABLE roster.writes IS 'Writes to Harvest: requested, sent and finished; the audit of who changed what';
COMMENT ON COLUMN roster.writes.id IS 'Id of the write; its events have it as cycle_id';
COMMENT ON COLUMN roster.writes.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.writes.kind IS 'What the write does';
COMMENT ON COLUMN roster.writes.user_id IS 'The user, or the user of the assignment; null for a user who does not exist yet';
COMMENT ON COLUMN roster.writes.project_id IS 'The project of the assignment';
COMMENT ON COLUMN roster.writes.assignment_id IS 'The assignment; null for one that does not exist yet';
COMMENT ON COLUMN roster.writes.role_id IS 'The job role; null for other writes, and for a role that does not exist yet';
COMMENT ON COLUMN roster.writes.email_key IS 'The address of a user to create, in lower case; null once done';
COMMENT ON COLUMN roster.writes.wanted IS 'The fields to write and their values; null once done';
COMMENT ON COLUMN roster.writes.fields IS 'Names of the fields, without values';
COMMENT ON COLUMN roster.writes.actor IS 'Who asked: cli:LOGIN@HOST, reconcile:LOGIN@HOST, scim:TOKENNAME or sql:LOGIN';
COMMENT ON COLUMN roster.writes.asked_at IS 'When it was requested';
COMMENT ON COLUMN roster.writes.held_at IS 'When the guard held it for a person; null if it did not';
COMMENT ON COLUMN roster.writes.accepted_at IS 'When a person accepted it';
COMMENT ON COLUMN roster.writes.accepted_by IS 'Who accepted or rejected it';
COMMENT ON COLUMN roster.writes.askers IS 'How many actors requested it, as far as they differ from the first one; only the write of one actor can be withdrawn';
COMMENT ON COLUMN roster.writes.attempts IS 'How often it was sent';
COMMENT ON COLUMN roster.writes.sent_at IS 'Before the request was sent; null if it certainly was not';
COMMENT ON COLUMN roster.writes.done_at IS 'When it was finished; null before';
COMMENT ON COLUMN roster.writes.answered_at IS 'When a SCIM client received the result of a creation or reactivation; null before, and for all other writes';
COMMENT ON COLUMN roster.writes.outcome IS 'done, unchanged (it was so already), planned (write.mode is "dry"), refused (by the settings or Harvest), withdrawn, rejected (by a person) or lost (no answer, and Harvest does not have it)';
COMMENT ON COLUMN roster.writes.status IS 'HTTP status of Harvest''s answer; null without one';
COMMENT ON COLUMN roster.writes.error IS 'Why it was refused, or why it is not finished yet';

ALTER TABLE roster.cycles DROP CONSTRAINT cycles_mode_check;
ALTER TABLE roster.cycles ADD CONSTRAINT cycles_mode_check CHECK (mode IN ('incremental', 'full', 'write'));
COMMENT ON COLUMN roster.cycles.mode IS 'incremental (what changed since the watermark), full (everything) or write (a write to Harvest, with the id of its row in roster.writes)';

-- Returns the open write that asks for the same, or inserts one, and wakes the daemon. A person who asks for a held write,
-- or for one of a program, accepts it. A write that was sent, or that a later one of the record follows, is no answer to a new request, except that a
-- creation answers a client that repeats it.
CREATE FUNCTION roster.write_insert(account bigint, kind text, user_id bigint, project_id bigint, assignment_id bigint,
                                    wanted jsonb, actor text, role_id bigint DEFAULT NULL)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '5s' AS $$
#variable_conflict use_variable
DECLARE
    address text := CASE WHEN kind = 'user_create' THEN lower(btrim(coalesce(wanted ->> 'email', ''))) END;
    -- A role may have a thousand users.
    max_bytes integer := CASE WHEN kind LIKE 'role%' THEN 65536 ELSE 8000 END;
    found uuid;
    known jsonb;
BEGIN
    IF pg_column_size(wanted) > max_bytes THEN
        RAISE EXCEPTION 'the fields of a write are longer than % bytes', max_bytes USING ERRCODE = '22023';
    END IF;
    -- Two equal requests at the same time become one write.
    PERFORM pg_advisory_xact_lock(hashtextextended(format('rosterd.writes/%s/%s', account, coalesce(user_id::text, address, 'roles')), 0));
    SELECT open.id, open.wanted INTO found, known FROM roster.writes AS open
     WHERE open.account_id = account AND open.done_at IS NULL AND open.kind = kind
       AND CASE WHEN kind = 'user_create' THEN open.email_key = address
                ELSE (open.sent_at IS NULL OR kind = 'role_create')
                     AND (open.user_id, open.project_id, open.assignment_id, open.role_id, open.wanted)
                         IS NOT DISTINCT FROM (user_id, project_id, assignment_id, role_id, coalesce(wanted, '{}'))
                     AND NOT EXISTS (SELECT FROM roster.writes AS later
                                      WHERE later.account_id = account AND later.done_at IS NULL
                                        AND (later.user_id = user_id OR later.role_id = role_id)
                                        AND later.asked_at > open.asked_at) END
     LIMIT 1;
    IF found IS NULL THEN
        -- The later request counts, also if a person accepts the earlier one.
        UPDATE roster.writes AS held
           SET done_at = clock_timestamp(), outcome = 'rejected', wanted = NULL, accepted_at = clock_timestamp(), accepted_by = actor
         WHERE kind = 'user_reactivate' AND held.account_id = account AND held.user_id = user_id AND held.done_at IS NULL
           AND held.kind = 'user_deactivate' AND held.held_at IS NOT NULL AND held.accepted_at IS NULL;
        INSERT INTO roster.writes AS new (account_id, kind, user_id, project_id, assignment_id, role_id, email_key, wanted, fields, actor)
        VALUES (account, kind, user_id, project_id, assignment_id, role_id, address, coalesce(wanted, '{}'),
                ARRAY(SELECT jsonb_object_keys(CASE jsonb_typeof(wanted) WHEN 'object' THEN wanted ELSE '{}' END) AS key ORDER BY key),
                actor)
        RETURNING new.id INTO found;
    ELSIF known <> wanted THEN
        RAISE EXCEPTION 'a write that creates a user with this e-mail address and other values is open: %', found
            USING ERRCODE = '23505', HINT = 'Wait until it is finished.';
    ELSE
        UPDATE roster.writes AS joined
           SET askers = askers + (joined.actor <> actor)::integer,
               accepted_at = CASE WHEN is_accepted THEN clock_timestamp() ELSE accepted_at END,
               accepted_by = CASE WHEN is_accepted THEN actor ELSE accepted_by END
          FROM (SELECT actor LIKE 'cli:%' AND accepted_at IS NULL
                       AND (writes.held_at IS NOT NULL OR writes.actor NOT LIKE 'cli:%') AS is_accepted
                  FROM roster.writes WHERE writes.id = found) AS before
         WHERE joined.id = found;
    END IF;
    PERFORM pg_notify('roster_write', account::text);
    RETURN found;
END $$;
COMMENT ON FUNCTION roster.write_insert IS 'For rosterd: requests a write in the name of an actor';

CREATE FUNCTION roster.write_ask(account bigint, kind text, user_id bigint DEFAULT NULL, project_id bigint DEFAULT NULL,
                                 assignment_id bigint DEFAULT NULL, wanted jsonb DEFAULT '{}')
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM roster.accounts WHERE account_id = account) THEN
        RAISE EXCEPTION 'rosterd has no account %', account USING ERRCODE = '22023';
    END IF;
    RETURN roster.write_insert(account, kind, user_id, project_id, assignment_id, wanted, 'sql:' || session_user);
END $$;
COMMENT ON FUNCTION roster.write_ask IS 'Requests a write to Harvest and returns its id. An open write that asks for the same is returned instead of a second one';

CREATE FUNCTION roster.write_outcome(write uuid, OUT outcome text, OUT user_id bigint, OUT assignment_id bigint,
                                     OUT status smallint, OUT error text, OUT held boolean, OUT sent boolean,
                                     OUT role_id bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT writes.outcome, writes.user_id, writes.assignment_id, writes.status, writes.error,
           writes.held_at IS NOT NULL AND writes.accepted_at IS NULL AND writes.done_at IS NULL,
           writes.sent_at IS NOT NULL, writes.role_id
      FROM roster.writes WHERE writes.id = $1
$$;
COMMENT ON FUNCTION roster.write_outcome IS 'State of a write: outcome is null until it is finished';

CREATE FUNCTION roster.write_withdraw(write uuid) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH withdrawn AS (
        UPDATE roster.writes SET done_at = clock_timestamp(), outcome = 'withdrawn', wanted = NULL, email_key = NULL
         WHERE id = $1 AND sent_at IS NULL AND done_at IS NULL
           AND (askers = 1 AND actor = 'sql:' || session_user
                OR pg_has_role(session_user, (SELECT relowner FROM pg_class WHERE oid = 'roster.writes'::regclass), 'MEMBER'))
        RETURNING 1
    )
    SELECT EXISTS (SELECT FROM withdrawn)
$$;
COMMENT ON FUNCTION roster.write_withdraw IS 'Withdraws a write of this login that was not sent; false if it is too late, or if another request has joined it. The owner of the table may withdraw any write';

-- Without deploy/roles.sql too, a login that is not the owner requests no writes.
REVOKE ALL ON FUNCTION roster.write_insert, roster.write_ask, roster.write_outcome, roster.write_withdraw FROM PUBLIC;
