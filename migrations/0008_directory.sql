-- What ordinary readers get: people, assignments and events without pay and without raw. Views of the owner's: whoever may
-- read schema directory needs no right in schema roster. New columns come at the end of each view.

-- deploy/roles.sql may have made it.
CREATE SCHEMA IF NOT EXISTS directory;
COMMENT ON SCHEMA directory IS 'rosterd, for readers: people, project teams and their changes, without pay';

CREATE VIEW directory.accounts AS
SELECT account_id, name, last_success_at, last_full_at FROM roster.accounts;
COMMENT ON VIEW directory.accounts IS 'The Harvest accounts that are mirrored; every other view has their account_id to select by';

CREATE VIEW directory.users AS
SELECT account_id, id, first_name, last_name, concat_ws(' ', nullif(first_name, ''), nullif(last_name, '')) AS name, email,
       telephone, timezone, weekly_capacity, has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles,
       permissions_claims, is_admin, is_project_manager, can_see_rates, can_create_projects, can_create_invoices,
       calendar_integration_enabled, calendar_integration_source, employee_id, avatar_url, created_at, updated_at, version,
       synced_at
  FROM roster.users WHERE deleted_at IS NULL;
COMMENT ON VIEW directory.users IS 'People, active and archived; those that Harvest no longer has are in deleted_users';

CREATE VIEW directory.active_users AS SELECT * FROM directory.users WHERE is_active;
COMMENT ON VIEW directory.active_users IS 'People who are active';

CREATE VIEW directory.deleted_users AS
SELECT account_id, id, first_name, last_name, concat_ws(' ', nullif(first_name, ''), nullif(last_name, '')) AS name, email,
       telephone, timezone, weekly_capacity, has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles,
       permissions_claims, is_admin, is_project_manager, can_see_rates, can_create_projects, can_create_invoices,
       calendar_integration_enabled, calendar_integration_source, employee_id, avatar_url, created_at, updated_at, version,
       synced_at, deleted_at
  FROM roster.users WHERE deleted_at IS NOT NULL;
COMMENT ON VIEW directory.deleted_users IS 'People that Harvest no longer has, as they were last';

CREATE VIEW directory.assignments AS
SELECT account_id, id, user_id, project_id, is_active, is_project_manager, use_default_rates, created_at, updated_at, version,
       synced_at
  FROM roster.user_assignments WHERE deleted_at IS NULL;
COMMENT ON VIEW directory.assignments IS 'Who is on which project, active and archived; what Harvest no longer has is in deleted_assignments';

CREATE VIEW directory.deleted_assignments AS
SELECT account_id, id, user_id, project_id, is_active, is_project_manager, use_default_rates, created_at, updated_at, version,
       synced_at, deleted_at
  FROM roster.user_assignments WHERE deleted_at IS NOT NULL;
COMMENT ON VIEW directory.deleted_assignments IS 'Assignments that Harvest no longer has, as they were last';

CREATE VIEW directory.projects AS SELECT account_id, id, name, code, seen_at FROM roster.projects;
COMMENT ON VIEW directory.projects IS 'Projects, as far as assignments name them';

CREATE VIEW directory.active_assignments AS
SELECT place.account_id, place.id, place.user_id, person.name AS user_name, person.email, place.project_id,
       project.name AS project_name, project.code AS project_code, place.is_project_manager, place.created_at,
       place.updated_at, place.version
  FROM directory.assignments AS place
  JOIN directory.active_users AS person ON (person.account_id, person.id) = (place.account_id, place.user_id)
  LEFT JOIN roster.projects AS project ON (project.account_id, project.id) = (place.account_id, place.project_id)
 WHERE place.is_active;
COMMENT ON VIEW directory.active_assignments IS 'Who works on what: active assignments of active people, with names';

CREATE VIEW directory.events AS
SELECT seq, id, aggregatetype, aggregateid, type,
       payload || jsonb_build_object(
           'changed', (payload -> 'changed') - '{default_hourly_rate,cost_rate,hourly_rate,budget,amount}'::text[],
           'before', CASE jsonb_typeof(payload -> 'before') WHEN 'object'
               THEN (payload -> 'before') - '{default_hourly_rate,cost_rate,hourly_rate,budget,amount}'::text[] END,
           'after', CASE jsonb_typeof(payload -> 'after') WHEN 'object'
               THEN (payload -> 'after') - '{default_hourly_rate,cost_rate,hourly_rate,budget,amount}'::text[] END) AS payload,
       account_id, version, occurred_at, recorded_at
  FROM roster.outbox;
COMMENT ON VIEW directory.events IS 'The outbox without pay: a change of pay alone keeps its row, with an empty changed';

CREATE VIEW directory.sync_status AS
SELECT account.account_id, account.name AS account_name, list.resource, mark.last_attempt_at, mark.last_success_at,
       mark.watermark, now() - mark.last_success_at AS lag,
       CASE list.resource
           WHEN 'users' THEN (SELECT count(*) FROM roster.users AS row
                               WHERE row.account_id = account.account_id AND row.deleted_at IS NULL)
           ELSE (SELECT count(*) FROM roster.user_assignments AS row
                  WHERE row.account_id = account.account_id AND row.deleted_at IS NULL)
       END AS rows,
       mark.next_full_at,
       (SELECT count(*) FROM roster.held_deletions AS held
         WHERE (held.account_id, held.resource) = (account.account_id, list.resource)
           AND held.decision IS DISTINCT FROM 'rejected') AS held_deletions,
       (SELECT count(*) FROM roster.rejected_records AS bad
         WHERE (bad.account_id, bad.resource) = (account.account_id, list.resource)) AS rejected_records,
       account.last_error
  FROM roster.accounts AS account
 CROSS JOIN (VALUES ('users'), ('user_assignments')) AS list (resource)
  LEFT JOIN roster.watermarks AS mark ON (mark.account_id, mark.resource) = (account.account_id, list.resource);
COMMENT ON VIEW directory.sync_status IS 'How fresh the mirror is: a row for each list of each account';

-- What people ask.

CREATE VIEW directory.administrators AS
SELECT * FROM directory.active_users WHERE 'administrator' = ANY (access_roles) OR is_admin;
COMMENT ON VIEW directory.administrators IS 'Active people who may do everything in Harvest';

CREATE VIEW directory.contractors AS SELECT * FROM directory.active_users WHERE is_contractor;
COMMENT ON VIEW directory.contractors IS 'Active people who are contractors';

CREATE VIEW directory.people_without_assignments AS
SELECT * FROM directory.active_users AS person
 WHERE NOT EXISTS (SELECT FROM roster.user_assignments AS place
                    WHERE (place.account_id, place.user_id) = (person.account_id, person.id) AND place.is_active);
COMMENT ON VIEW directory.people_without_assignments IS 'Active people who are on no project';

CREATE VIEW directory.inactive_people_still_assigned AS
SELECT place.account_id, place.user_id, concat_ws(' ', nullif(person.first_name, ''), nullif(person.last_name, '')) AS user_name,
       person.deleted_at AS user_deleted_at, place.id AS assignment_id, place.project_id, project.name AS project_name
  FROM roster.user_assignments AS place
  JOIN roster.users AS person ON (person.account_id, person.id) = (place.account_id, place.user_id)
  LEFT JOIN roster.projects AS project ON (project.account_id, project.id) = (place.account_id, place.project_id)
 WHERE place.is_active AND NOT person.is_active;
COMMENT ON VIEW directory.inactive_people_still_assigned IS 'Active assignments of people who are archived or gone';

CREATE VIEW directory.capacity AS
SELECT person.account_id, person.id AS user_id, person.name AS user_name, person.weekly_capacity,
       count(place.id) AS active_assignments,
       round(person.weekly_capacity / nullif(count(place.id), 0)::numeric) AS weekly_capacity_each
  FROM directory.active_users AS person
  LEFT JOIN roster.user_assignments AS place
    ON (place.account_id, place.user_id) = (person.account_id, person.id) AND place.is_active
 GROUP BY person.account_id, person.id, person.name, person.weekly_capacity;
COMMENT ON VIEW directory.capacity IS 'The working time of active people and over how many projects it spreads';

CREATE VIEW directory.duplicate_emails AS
SELECT account_id, lower(email) AS email, count(*) AS people, array_agg(id ORDER BY id) AS user_ids
  FROM directory.users WHERE email <> '' GROUP BY account_id, lower(email) HAVING count(*) > 1;
COMMENT ON VIEW directory.duplicate_emails IS 'E-mail addresses, in lower case, that several people of an account have';

CREATE VIEW directory.v1_user_assignments AS
SELECT account_id, id, user_id, project_id, NOT is_active AS deactivated, is_project_manager, NULL::numeric AS hourly_rate,
       NULL::numeric AS budget, NULL::numeric AS estimate, created_at, updated_at
  FROM directory.assignments;
COMMENT ON VIEW directory.v1_user_assignments IS 'Assignments by the names of Harvest''s API v1, for queries from that time';

-- A column that shows one of a table's is explained as that is; the rest by name.
DO $$
DECLARE shown record;
BEGIN
    FOR shown IN
        SELECT view.table_name, view.column_name, min(col_description(source.attrelid, source.attnum)) AS explained
          FROM information_schema.columns AS view
          JOIN pg_attribute AS source ON source.attname = view.column_name
           AND source.attrelid = CASE
               WHEN view.table_name = 'accounts' THEN 'roster.accounts'
               WHEN view.table_name = 'events' THEN 'roster.outbox'
               WHEN view.table_name = 'projects' THEN 'roster.projects'
               WHEN view.table_name = 'sync_status' THEN 'roster.watermarks'
               WHEN view.table_name ~ 'assign' AND view.table_name NOT LIKE 'people%' THEN 'roster.user_assignments'
               ELSE 'roster.users' END::regclass
         WHERE view.table_schema = 'directory'
         GROUP BY view.table_name, view.column_name
    LOOP
        EXECUTE format('COMMENT ON COLUMN directory.%I.%I IS %L', shown.table_name, shown.column_name, shown.explained);
    END LOOP;
    FOR shown IN
        SELECT view.table_name, own.name AS column_name, own.explained
          FROM (VALUES
            ('name', 'First and last name'),
            ('user_name', 'First and last name'),
            ('email', 'E-mail address, as Harvest spells it'),
            ('user_id', 'Harvest''s id of the person'),
            ('project_name', 'Name of the project, as last seen'),
            ('project_code', 'Code of the project, as last seen'),
            ('payload', 'The change: account_id, id, type, version, changed, before, after, cycle_id, mode, stream_id; without pay'),
            ('account_name', 'Name of the company'),
            ('lag', 'Time since the last complete read that was recorded; up to a minute of it means nothing while nothing changes'),
            ('rows', 'Records that Harvest has'),
            ('held_deletions', 'Deletions that wait for a person'),
            ('rejected_records', 'Records that cannot be read'),
            ('last_error', 'Why the account''s last cycle failed; null after a good one'),
            ('user_deleted_at', 'When the person''s deletion was confirmed; null while Harvest has them'),
            ('assignment_id', 'Harvest''s id of the assignment'),
            ('active_assignments', 'Active assignments of the person'),
            ('weekly_capacity_each', 'Working time of a week for each of them, in seconds; null without any'),
            ('people', 'How many people have it'),
            ('user_ids', 'Their ids'),
            ('deactivated', 'Whether the assignment is archived: is_active, inverted'),
            ('hourly_rate', 'Always null: pay is not for readers'),
            ('budget', 'Always null: pay is not for readers'),
            ('estimate', 'Always null: API v2 has none')) AS own (name, explained)
          JOIN information_schema.columns AS view ON view.column_name = own.name AND view.table_schema = 'directory'
         WHERE NOT (view.table_name IN ('accounts', 'projects') AND own.name = 'name')
    LOOP
        EXECUTE format('COMMENT ON COLUMN directory.%I.%I IS %L', shown.table_name, shown.column_name, shown.explained);
    END LOOP;
END $$;

-- For the questions asked: by project or user, active only; changed since.
CREATE INDEX users_updated ON roster.users (account_id, updated_at);
CREATE INDEX user_assignments_updated ON roster.user_assignments (account_id, updated_at);
CREATE INDEX users_email_anywhere ON roster.users (lower(email));
