-- Every version of every person and assignment, for questions about a day in the past. Written with the event that made the
-- version, by the same statement: it can be neither forgotten nor come too late.

CREATE TABLE roster.user_history (
    account_id                        bigint      NOT NULL,
    id                                bigint      NOT NULL,
    version                           bigint      NOT NULL,
    type                              text        NOT NULL,
    valid_from                        timestamptz NOT NULL,
    valid_to                          timestamptz,
    occurred_at                       timestamptz,
    first_name                        text,
    last_name                         text,
    email                             text,
    telephone                         text,
    timezone                          text,
    weekly_capacity                   int,
    has_access_to_all_future_projects bool,
    is_contractor                     bool,
    is_active                         bool        NOT NULL,
    roles                             text[],
    access_roles                      text[],
    permissions_claims                text[],
    is_admin                          bool,
    is_project_manager                bool,
    can_see_rates                     bool,
    can_create_projects               bool,
    can_create_invoices               bool,
    calendar_integration_enabled      bool,
    calendar_integration_source       text,
    employee_id                       text,
    default_hourly_rate               numeric,
    cost_rate                         numeric,
    created_at                        timestamptz,
    PRIMARY KEY (account_id, id, version)
);
CREATE INDEX user_history_time ON roster.user_history (valid_from);
CREATE UNIQUE INDEX user_history_current ON roster.user_history (account_id, id) WHERE valid_to IS NULL;

CREATE TABLE roster.user_assignment_history (
    account_id         bigint      NOT NULL,
    id                 bigint      NOT NULL,
    version            bigint      NOT NULL,
    type               text        NOT NULL,
    valid_from         timestamptz NOT NULL,
    valid_to           timestamptz,
    occurred_at        timestamptz,
    user_id            bigint,
    project_id         bigint,
    is_active          bool        NOT NULL,
    is_project_manager bool,
    use_default_rates  bool,
    hourly_rate        numeric,
    budget             numeric,
    created_at         timestamptz,
    PRIMARY KEY (account_id, id, version)
);
CREATE INDEX user_assignment_history_time ON roster.user_assignment_history (valid_from);
CREATE INDEX user_assignment_history_project ON roster.user_assignment_history (account_id, project_id);
CREATE UNIQUE INDEX user_assignment_history_current ON roster.user_assignment_history (account_id, id) WHERE valid_to IS NULL;

-- What is mirrored already: from when it was last written, or told where that is known.
INSERT INTO roster.user_history
SELECT row.account_id, row.id, row.version, coalesce(event.type, 'user.created'), coalesce(event.recorded_at, row.synced_at), NULL,
       coalesce(event.occurred_at, row.updated_at), first_name, last_name, email, telephone, timezone, weekly_capacity,
       has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles, permissions_claims, is_admin,
       is_project_manager, can_see_rates, can_create_projects, can_create_invoices, calendar_integration_enabled,
       calendar_integration_source, employee_id, default_hourly_rate, cost_rate, created_at
  FROM roster.users AS row
  LEFT JOIN roster.outbox AS event ON (event.account_id, event.aggregatetype, event.aggregateid, event.version)
                                    = (row.account_id, 'user', row.account_id || '/' || row.id, row.version);
INSERT INTO roster.user_assignment_history
SELECT row.account_id, row.id, row.version, coalesce(event.type, 'user_assignment.created'),
       coalesce(event.recorded_at, row.synced_at), NULL, coalesce(event.occurred_at, row.updated_at), user_id, project_id,
       is_active, is_project_manager, use_default_rates, hourly_rate, budget, created_at
  FROM roster.user_assignments AS row
  LEFT JOIN roster.outbox AS event ON (event.account_id, event.aggregatetype, event.aggregateid, event.version)
                                    = (row.account_id, 'user_assignment', row.account_id || '/' || row.id, row.version);

CREATE FUNCTION roster.keep_history() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE roster.user_history AS past SET valid_to = told.recorded_at
      FROM told
     WHERE told.aggregatetype = 'user' AND told.version > 1 AND past.valid_to IS NULL
       AND past.account_id = told.account_id AND past.id = (told.payload ->> 'id')::bigint;
    INSERT INTO roster.user_history
    SELECT row.account_id, row.id, told.version, told.type, told.recorded_at, NULL, told.occurred_at, first_name, last_name,
           email, telephone, timezone, weekly_capacity, has_access_to_all_future_projects, is_contractor, is_active, roles,
           access_roles, permissions_claims, is_admin, is_project_manager, can_see_rates, can_create_projects,
           can_create_invoices, calendar_integration_enabled, calendar_integration_source, employee_id, default_hourly_rate,
           cost_rate, created_at
      FROM told
      JOIN roster.users AS row ON row.account_id = told.account_id AND row.id = (told.payload ->> 'id')::bigint
     WHERE told.aggregatetype = 'user';
    UPDATE roster.user_assignment_history AS past SET valid_to = told.recorded_at
      FROM told
     WHERE told.aggregatetype = 'user_assignment' AND told.version > 1 AND past.valid_to IS NULL
       AND past.account_id = told.account_id AND past.id = (told.payload ->> 'id')::bigint;
    INSERT INTO roster.user_assignment_history
    SELECT row.account_id, row.id, told.version, told.type, told.recorded_at, NULL, told.occurred_at, user_id, project_id,
           is_active, is_project_manager, use_default_rates, hourly_rate, budget, created_at
      FROM told
      JOIN roster.user_assignments AS row ON row.account_id = told.account_id AND row.id = (told.payload ->> 'id')::bigint
     WHERE told.aggregatetype = 'user_assignment';
    RETURN NULL;
END $$;
COMMENT ON FUNCTION roster.keep_history IS 'Keeps the version that each new event tells of';
REVOKE ALL ON FUNCTION roster.keep_history FROM PUBLIC;
CREATE TRIGGER keep_history AFTER INSERT ON roster.outbox REFERENCING NEW TABLE AS told
    FOR EACH STATEMENT EXECUTE FUNCTION roster.keep_history();

-- For readers: without pay.

CREATE VIEW directory.user_history AS
SELECT account_id, id, version, type, valid_from, valid_to, occurred_at, first_name, last_name, email, telephone, timezone,
       weekly_capacity, has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles, permissions_claims,
       is_admin, is_project_manager, can_see_rates, can_create_projects, can_create_invoices, calendar_integration_enabled,
       calendar_integration_source, employee_id, created_at
  FROM roster.user_history;
CREATE VIEW directory.assignment_history AS
SELECT account_id, id, version, type, valid_from, valid_to, occurred_at, user_id, project_id, is_active, is_project_manager,
       use_default_rates, created_at
  FROM roster.user_assignment_history;

-- Plain functions on views that readers may read: the planner sees through them, so one person's past is read by an index.
CREATE FUNCTION directory.users_as_of(at timestamptz) RETURNS SETOF directory.user_history
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT * FROM directory.user_history
     WHERE valid_from <= at AND (valid_to IS NULL OR valid_to > at) AND type <> 'user.deleted';
END;
CREATE FUNCTION directory.assignments_as_of(at timestamptz) RETURNS SETOF directory.assignment_history
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT * FROM directory.assignment_history
     WHERE valid_from <= at AND (valid_to IS NULL OR valid_to > at) AND type <> 'user_assignment.deleted';
END;
REVOKE ALL ON FUNCTION directory.users_as_of, directory.assignments_as_of FROM PUBLIC;
COMMENT ON FUNCTION directory.users_as_of IS 'People as the mirror had them at that moment, without those that were deleted by then';
COMMENT ON FUNCTION directory.assignments_as_of IS 'Assignments as the mirror had them at that moment, without those that were deleted by then';

CREATE VIEW directory.joiners AS
SELECT account_id, id AS user_id, concat_ws(' ', nullif(first_name, ''), nullif(last_name, '')) AS user_name, email, type AS how,
       -- Whoever comes back after a deletion has the old created_at.
       (CASE WHEN version = 1 THEN coalesce(created_at, occurred_at) ELSE occurred_at END AT TIME ZONE 'UTC')::date AS day
  FROM roster.user_history WHERE type IN ('user.created', 'user.reactivated') AND is_active;
CREATE VIEW directory.leavers AS
SELECT account_id, id AS user_id, concat_ws(' ', nullif(first_name, ''), nullif(last_name, '')) AS user_name, email, type AS how,
       (occurred_at AT TIME ZONE 'UTC')::date AS day
  FROM roster.user_history AS left_
 WHERE type = 'user.deactivated'
    OR type = 'user.deleted' AND EXISTS (SELECT FROM roster.user_history AS before
                                          WHERE before.account_id = left_.account_id AND before.id = left_.id
                                            AND before.version = left_.version - 1 AND before.is_active);
CREATE VIEW directory.joiners_and_leavers_by_day AS
SELECT account_id, day, sum(joined) AS joined, sum(gone) AS gone
  FROM (SELECT account_id, day, 1 AS joined, 0 AS gone FROM directory.joiners
        UNION ALL SELECT account_id, day, 0, 1 FROM directory.leavers) AS moves
 GROUP BY account_id, day;

COMMENT ON TABLE roster.user_history IS 'Every version of every person; holds pay';
COMMENT ON TABLE roster.user_assignment_history IS 'Every version of every assignment; holds pay';
COMMENT ON VIEW directory.user_history IS 'Every version of every person, without pay';
COMMENT ON VIEW directory.assignment_history IS 'Every version of every assignment, without pay';
COMMENT ON VIEW directory.joiners IS 'Who joined, or came back, and when by Harvest''s clock';
COMMENT ON VIEW directory.leavers IS 'Who left and when: archived by Harvest''s clock, or deleted while active';
COMMENT ON VIEW directory.joiners_and_leavers_by_day IS 'How many joined and left each day';

DO $$
DECLARE shown record;
BEGIN
    FOR shown IN
        SELECT view.oid::regclass AS shown, own.attname AS column_name,
               coalesce(said.explained, col_description(source.attrelid, source.attnum)) AS explained
          FROM pg_class AS view
          JOIN pg_attribute AS own ON own.attrelid = view.oid AND own.attnum > 0
          LEFT JOIN (VALUES
            ('version', 'The record''s version: 1, 2, 3 …'),
            ('type', 'The event that made it, such as user.updated'),
            ('valid_from', 'When the mirror came to have this version'),
            ('valid_to', 'When it had another; null for the one it has'),
            ('occurred_at', 'Harvest''s time of the change; for a deletion, when it was confirmed'),
            ('user_id', 'Harvest''s id of the person'),
            ('user_name', 'First and last name'),
            ('how', 'The event: created or reactivated, deactivated or deleted'),
            ('day', 'The day, in UTC'),
            ('joined', 'People who joined or came back'),
            ('gone', 'People who left')) AS said (name, explained) ON said.name = own.attname
          LEFT JOIN pg_attribute AS source ON source.attname = own.attname AND source.attrelid =
               CASE WHEN view.relname ~ 'assignment' THEN 'roster.user_assignments' ELSE 'roster.users' END::regclass
         WHERE view.oid IN ('roster.user_history'::regclass, 'roster.user_assignment_history'::regclass,
               'directory.user_history'::regclass, 'directory.assignment_history'::regclass, 'directory.joiners'::regclass,
               'directory.leavers'::regclass, 'directory.joiners_and_leavers_by_day'::regclass)
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', shown.shown, shown.column_name, shown.explained);
    END LOOP;
END $$;
