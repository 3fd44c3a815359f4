-- Views for readers: users, assignments and events, without pay data and raw. The views have their owner's rights, so
-- readers need none in schema roster. New columns go to the end of each view.

-- deploy/roles.sql may have created it.
CREATE SCHEMA IF NOT EXISTS directory;
COMMENT ON SCHEMA directory IS 'rosterd: users, project teams and their changes for readers, without pay data';

CREATE VIEW directory.accounts AS
SELECT account_id, name, last_success_at, last_full_at FROM roster.accounts;
COMMENT ON VIEW directory.accounts IS 'Mirrored Harvest accounts';

CREATE VIEW directory.users AS
SELECT account_id, id, first_name, last_name, concat_ws(' ', nullif(first_name, ''), nullif(last_name, '')) AS name, email,
       telephone, timezone, weekly_capacity, has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles,
       permissions_claims, is_admin, is_project_manager, can_see_rates, can_create_projects, can_create_invoices,
       calendar_integration_enabled, calendar_integration_source, employee_id, avatar_url, created_at, updated_at, version,
       synced_at
  FROM roster.users WHERE deleted_at IS NULL;
COMMENT ON VIEW directory.users IS 'Users, active and archived; deleted ones are in deleted_users';

CREATE VIEW directory.active_users AS SELECT * FROM directory.users WHERE is_active;
COMMENT ON VIEW directory.active_users IS 'Active users';

CREATE VIEW directory.deleted_users AS
SELECT account_id, id, first_name, last_name, concat_ws(' ', nullif(first_name, ''), nullif(last_name, '')) AS name, email,
       telephone, timezone, weekly_capacity, has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles,
       permissions_claims, is_admin, is_project_manager, can_see_rates, can_create_projects, can_create_invoices,
       calendar_integration_enabled, calendar_integration_source, employee_id, avatar_url, created_at, updated_at, version,
       synced_at, deleted_at
  FROM roster.users WHERE deleted_at IS NOT NULL;
COMMENT ON VIEW directory.deleted_users IS 'Deleted users, with their last values';

CREATE VIEW directory.assignments AS
SELECT account_id, id, user_id, project_id, is_active, is_project_manager, use_default_rates, created_at, updated_at, version,
       synced_at
  FROM roster.user_assignments WHERE deleted_at IS NULL;
COMMENT ON VIEW directory.assignments IS 'User assignments (which user is on which project), active and archived; deleted ones are in deleted_assignments';

CREATE VIEW directory.deleted_assignments AS
SELECT account_id, id, user_id, project_id, is_active, is_project_manager, use_default_rates, created_at, updated_at, version,
       synced_at, deleted_at
  FROM roster.user_assignments WHERE deleted_at IS NOT NULL;
COMMENT ON VIEW directory.deleted_assignments IS 'Deleted assignments, with their last values';

CREATE VIEW directory.projects AS SELECT account_id, id, name, code, seen_at FROM roster.projects;
COMMENT ON VIEW directory.projects IS 'Projects that assignments refer to';

CREATE VIEW directory.active_assignments AS
SELECT place.account_id, place.id, place.user_id, person.name AS user_name, person.email, place.project_id,
       project.name AS project_name, project.code AS project_code, place.is_project_manager, place.created_at,
       place.updated_at, place.version
  FROM directory.assignments AS place
  JOIN directory.active_users AS person ON (person.account_id, person.id) = (place.account_id, place.user_id)
  LEFT JOIN roster.projects AS project ON (project.account_id, project.id) = (place.account_id, place.project_id)
 WHERE place.is_active;
COMMENT ON VIEW directory.active_assignments IS 'Active assignments of active users, with names';

CREATE VIEW directory.events AS
SELECT seq, id, aggregatetype, aggregateid, type,
       payload || jsonb_build_object(
           'changed', (payload -> 'changed') - '{default_hourly_rate,cost_rate,hourly_rate,budget,amount}'::text[],
           'before', CASE jsonb_typeof(payload -> 'before') WHEN 'object'
               THEN (payload -> 'before') - '{default_hourly_rate,cost_rate,hourly_rate,budget,amount}'::text[] END,
           'after', CASE jsonb_typeof(payload -> 'after') WHEN 'object'
               THEN (payload -> 'after') - '{default_hourly_rate,cost_rate,hourly_rate,budget,amount}'::text[] END) AS payload,
       account_id, version, occurred_at, recorded_at, record_id
  FROM roster.outbox;
COMMENT ON VIEW directory.events IS 'Events of the outbox without pay data; a change of pay data alone keeps its row, with an empty changed';

-- With rates.histories, has a row for each kind of rate. The lists of all users have been read since last_success_at.
CREATE VIEW directory.sync_status AS
SELECT account.account_id, account.name AS account_name, list.resource, mark.last_attempt_at, mark.last_success_at,
       mark.watermark, now() - mark.last_success_at AS lag,
       CASE list.resource
           WHEN 'users' THEN (SELECT count(*) FROM roster.users AS row
                               WHERE row.account_id = account.account_id AND row.deleted_at IS NULL)
           WHEN 'user_assignments' THEN (SELECT count(*) FROM roster.user_assignments AS row
                                          WHERE row.account_id = account.account_id AND row.deleted_at IS NULL)
           WHEN 'billable_rates' THEN (SELECT count(*) FROM roster.billable_rates AS row
                                        WHERE row.account_id = account.account_id AND row.deleted_at IS NULL)
           ELSE (SELECT count(*) FROM roster.cost_rates AS row
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
 CROSS JOIN LATERAL (
           VALUES ('users'), ('user_assignments')
           UNION ALL
           SELECT rates.resource FROM (VALUES ('billable_rates'), ('cost_rates')) AS rates (resource)
            WHERE EXISTS (SELECT FROM roster.rate_reads AS had WHERE had.account_id = account.account_id)
       ) AS list (resource)
  LEFT JOIN LATERAL (
           SELECT last_attempt_at, last_success_at, watermark, next_full_at
             FROM roster.watermarks
            WHERE (watermarks.account_id, watermarks.resource) = (account.account_id, list.resource)
           UNION ALL
           SELECT max(had.read_at), min(had.read_at), NULL, NULL
             FROM roster.rate_reads AS had
             JOIN roster.users AS person
               ON (person.account_id, person.id) = (had.account_id, had.user_id) AND person.deleted_at IS NULL
            WHERE had.account_id = account.account_id AND list.resource IN ('billable_rates', 'cost_rates')
           HAVING count(*) > 0
       ) AS mark ON true;
COMMENT ON VIEW directory.sync_status IS 'How fresh the mirror is: a row for each list of each account and, with rates.histories, for each kind of rate';

-- Frequent questions.

CREATE VIEW directory.administrators AS
SELECT * FROM directory.active_users WHERE 'administrator' = ANY (access_roles) OR is_admin;
COMMENT ON VIEW directory.administrators IS 'Active administrators';

CREATE VIEW directory.contractors AS SELECT * FROM directory.active_users WHERE is_contractor;
COMMENT ON VIEW directory.contractors IS 'Active contractors';

CREATE VIEW directory.people_without_assignments AS
SELECT * FROM directory.active_users AS person
 WHERE NOT EXISTS (SELECT FROM roster.user_assignments AS place
                    WHERE (place.account_id, place.user_id) = (person.account_id, person.id) AND place.is_active);
COMMENT ON VIEW directory.people_without_assignments IS 'Active users without an active assignment';

CREATE VIEW directory.inactive_people_still_assigned AS
SELECT place.account_id, place.user_id, concat_ws(' ', nullif(person.first_name, ''), nullif(person.last_name, '')) AS user_name,
       person.deleted_at AS user_deleted_at, place.id AS assignment_id, place.project_id, project.name AS project_name
  FROM roster.user_assignments AS place
  JOIN roster.users AS person ON (person.account_id, person.id) = (place.account_id, place.user_id)
  LEFT JOIN roster.projects AS project ON (project.account_id, project.id) = (place.account_id, place.project_id)
 WHERE place.is_active AND NOT person.is_active;
COMMENT ON VIEW directory.inactive_people_still_assigned IS 'Active assignments of users who are archived or deleted';

-- Counts for each user separately, so a query for one user reads only its assignments.
CREATE VIEW directory.capacity AS
SELECT person.account_id, person.id AS user_id, person.name AS user_name, person.weekly_capacity, place.active_assignments,
       round(person.weekly_capacity / nullif(place.active_assignments, 0)::numeric) AS weekly_capacity_each
  FROM directory.active_users AS person
 CROSS JOIN LATERAL (SELECT count(*) AS active_assignments FROM roster.user_assignments AS place
                      WHERE (place.account_id, place.user_id) = (person.account_id, person.id) AND place.is_active) AS place;
COMMENT ON VIEW directory.capacity IS 'Working time of active users, and the number of projects it is spread over';

CREATE VIEW directory.duplicate_emails AS
SELECT account_id, lower(email) AS email, count(*) AS people, array_agg(id ORDER BY id) AS user_ids
  FROM directory.users WHERE email <> '' GROUP BY account_id, lower(email) HAVING count(*) > 1;
COMMENT ON VIEW directory.duplicate_emails IS 'E-mail addresses, in lower case, that several users of an account have';

CREATE VIEW directory.v1_user_assignments AS
SELECT account_id, id, user_id, project_id, NOT is_active AS deactivated, is_project_manager, NULL::numeric AS hourly_rate,
       NULL::numeric AS budget, NULL::numeric AS estimate, created_at, updated_at
  FROM directory.assignments;
COMMENT ON VIEW directory.v1_user_assignments IS 'Assignments with the column names of Harvest''s API v1, for old queries';

-- Columns.
COMMENT ON COLUMN directory.accounts.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.accounts.name IS 'Name of the company';
COMMENT ON COLUMN directory.accounts.last_success_at IS 'End of the last successful cycle that wrote something; freshness is in roster.watermarks';
COMMENT ON COLUMN directory.accounts.last_full_at IS 'End of the last full read';
COMMENT ON COLUMN directory.users.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.users.id IS 'Harvest''s id of the user, unique within the account';
COMMENT ON COLUMN directory.users.first_name IS 'First name';
COMMENT ON COLUMN directory.users.last_name IS 'Last name';
COMMENT ON COLUMN directory.users.name IS 'First and last name';
COMMENT ON COLUMN directory.users.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN directory.users.telephone IS 'Telephone number; empty if the user has none';
COMMENT ON COLUMN directory.users.timezone IS 'Time zone by its Rails name, such as Eastern Time (US & Canada); not an IANA name';
COMMENT ON COLUMN directory.users.weekly_capacity IS 'Working time per week, in seconds';
COMMENT ON COLUMN directory.users.has_access_to_all_future_projects IS 'Whether Harvest assigns this user to every new project automatically';
COMMENT ON COLUMN directory.users.is_contractor IS 'Whether the user is a contractor';
COMMENT ON COLUMN directory.users.is_active IS 'Whether the user is active (not archived); false for a deleted user';
COMMENT ON COLUMN directory.users.roles IS 'Names of the user''s job roles; a set, without rights';
COMMENT ON COLUMN directory.users.access_roles IS 'Access roles, such as administrator, manager, member; an open set';
COMMENT ON COLUMN directory.users.permissions_claims IS 'Permission claims, such as timers:read:own; an open set, undocumented by Harvest';
COMMENT ON COLUMN directory.users.is_admin IS 'Whether the user is an administrator: as sent, otherwise derived from access_roles';
COMMENT ON COLUMN directory.users.is_project_manager IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.users.can_see_rates IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.users.can_create_projects IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.users.can_create_invoices IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.users.calendar_integration_enabled IS 'Whether a calendar is connected; undocumented by Harvest';
COMMENT ON COLUMN directory.users.calendar_integration_source IS 'Which calendar is connected, such as google; undocumented by Harvest';
COMMENT ON COLUMN directory.users.employee_id IS 'Employee number, if the account uses it; undocumented by Harvest';
COMMENT ON COLUMN directory.users.avatar_url IS 'Address of the user''s picture; changes of it emit no event';
COMMENT ON COLUMN directory.users.created_at IS 'When the user was created in Harvest';
COMMENT ON COLUMN directory.users.updated_at IS 'Harvest''s time of the last change, in whole seconds; some changes do not update it';
COMMENT ON COLUMN directory.users.version IS '1 when first seen, incremented with each event';
COMMENT ON COLUMN directory.users.synced_at IS 'When this row was last written';
COMMENT ON COLUMN directory.active_users.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.active_users.id IS 'Harvest''s id of the user, unique within the account';
COMMENT ON COLUMN directory.active_users.first_name IS 'First name';
COMMENT ON COLUMN directory.active_users.last_name IS 'Last name';
COMMENT ON COLUMN directory.active_users.name IS 'First and last name';
COMMENT ON COLUMN directory.active_users.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN directory.active_users.telephone IS 'Telephone number; empty if the user has none';
COMMENT ON COLUMN directory.active_users.timezone IS 'Time zone by its Rails name, such as Eastern Time (US & Canada); not an IANA name';
COMMENT ON COLUMN directory.active_users.weekly_capacity IS 'Working time per week, in seconds';
COMMENT ON COLUMN directory.active_users.has_access_to_all_future_projects IS 'Whether Harvest assigns this user to every new project automatically';
COMMENT ON COLUMN directory.active_users.is_contractor IS 'Whether the user is a contractor';
COMMENT ON COLUMN directory.active_users.is_active IS 'Whether the user is active (not archived); false for a deleted user';
COMMENT ON COLUMN directory.active_users.roles IS 'Names of the user''s job roles; a set, without rights';
COMMENT ON COLUMN directory.active_users.access_roles IS 'Access roles, such as administrator, manager, member; an open set';
COMMENT ON COLUMN directory.active_users.permissions_claims IS 'Permission claims, such as timers:read:own; an open set, undocumented by Harvest';
COMMENT ON COLUMN directory.active_users.is_admin IS 'Whether the user is an administrator: as sent, otherwise derived from access_roles';
COMMENT ON COLUMN directory.active_users.is_project_manager IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.active_users.can_see_rates IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.active_users.can_create_projects IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.active_users.can_create_invoices IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.active_users.calendar_integration_enabled IS 'Whether a calendar is connected; undocumented by Harvest';
COMMENT ON COLUMN directory.active_users.calendar_integration_source IS 'Which calendar is connected, such as google; undocumented by Harvest';
COMMENT ON COLUMN directory.active_users.employee_id IS 'Employee number, if the account uses it; undocumented by Harvest';
COMMENT ON COLUMN directory.active_users.avatar_url IS 'Address of the user''s picture; changes of it emit no event';
COMMENT ON COLUMN directory.active_users.created_at IS 'When the user was created in Harvest';
COMMENT ON COLUMN directory.active_users.updated_at IS 'Harvest''s time of the last change, in whole seconds; some changes do not update it';
COMMENT ON COLUMN directory.active_users.version IS '1 when first seen, incremented with each event';
COMMENT ON COLUMN directory.active_users.synced_at IS 'When this row was last written';
COMMENT ON COLUMN directory.deleted_users.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.deleted_users.id IS 'Harvest''s id of the user, unique within the account';
COMMENT ON COLUMN directory.deleted_users.first_name IS 'First name';
COMMENT ON COLUMN directory.deleted_users.last_name IS 'Last name';
COMMENT ON COLUMN directory.deleted_users.name IS 'First and last name';
COMMENT ON COLUMN directory.deleted_users.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN directory.deleted_users.telephone IS 'Telephone number; empty if the user has none';
COMMENT ON COLUMN directory.deleted_users.timezone IS 'Time zone by its Rails name, such as Eastern Time (US & Canada); not an IANA name';
COMMENT ON COLUMN directory.deleted_users.weekly_capacity IS 'Working time per week, in seconds';
COMMENT ON COLUMN directory.deleted_users.has_access_to_all_future_projects IS 'Whether Harvest assigns this user to every new project automatically';
COMMENT ON COLUMN directory.deleted_users.is_contractor IS 'Whether the user is a contractor';
COMMENT ON COLUMN directory.deleted_users.is_active IS 'Whether the user is active (not archived); false for a deleted user';
COMMENT ON COLUMN directory.deleted_users.roles IS 'Names of the user''s job roles; a set, without rights';
COMMENT ON COLUMN directory.deleted_users.access_roles IS 'Access roles, such as administrator, manager, member; an open set';
COMMENT ON COLUMN directory.deleted_users.permissions_claims IS 'Permission claims, such as timers:read:own; an open set, undocumented by Harvest';
COMMENT ON COLUMN directory.deleted_users.is_admin IS 'Whether the user is an administrator: as sent, otherwise derived from access_roles';
COMMENT ON COLUMN directory.deleted_users.is_project_manager IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.deleted_users.can_see_rates IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.deleted_users.can_create_projects IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.deleted_users.can_create_invoices IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.deleted_users.calendar_integration_enabled IS 'Whether a calendar is connected; undocumented by Harvest';
COMMENT ON COLUMN directory.deleted_users.calendar_integration_source IS 'Which calendar is connected, such as google; undocumented by Harvest';
COMMENT ON COLUMN directory.deleted_users.employee_id IS 'Employee number, if the account uses it; undocumented by Harvest';
COMMENT ON COLUMN directory.deleted_users.avatar_url IS 'Address of the user''s picture; changes of it emit no event';
COMMENT ON COLUMN directory.deleted_users.created_at IS 'When the user was created in Harvest';
COMMENT ON COLUMN directory.deleted_users.updated_at IS 'Harvest''s time of the last change, in whole seconds; some changes do not update it';
COMMENT ON COLUMN directory.deleted_users.version IS '1 when first seen, incremented with each event';
COMMENT ON COLUMN directory.deleted_users.synced_at IS 'When this row was last written';
COMMENT ON COLUMN directory.deleted_users.deleted_at IS 'When the deletion was confirmed; null while Harvest has the user';
COMMENT ON COLUMN directory.assignments.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.assignments.id IS 'Harvest''s id of the assignment, unique within the account';
COMMENT ON COLUMN directory.assignments.user_id IS 'Harvest''s id of the user';
COMMENT ON COLUMN directory.assignments.project_id IS 'The project: roster.projects.id';
COMMENT ON COLUMN directory.assignments.is_active IS 'Whether the assignment is active (not archived); false for a deleted one';
COMMENT ON COLUMN directory.assignments.is_project_manager IS 'Whether the user manages this project';
COMMENT ON COLUMN directory.assignments.use_default_rates IS 'Whether the user''s default rates apply to this project';
COMMENT ON COLUMN directory.assignments.created_at IS 'When the assignment was created in Harvest';
COMMENT ON COLUMN directory.assignments.updated_at IS 'Harvest''s time of the last change, in whole seconds; some changes do not update it';
COMMENT ON COLUMN directory.assignments.version IS '1 when first seen, incremented with each event';
COMMENT ON COLUMN directory.assignments.synced_at IS 'When this row was last written';
COMMENT ON COLUMN directory.deleted_assignments.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.deleted_assignments.id IS 'Harvest''s id of the assignment, unique within the account';
COMMENT ON COLUMN directory.deleted_assignments.user_id IS 'Harvest''s id of the user';
COMMENT ON COLUMN directory.deleted_assignments.project_id IS 'The project: roster.projects.id';
COMMENT ON COLUMN directory.deleted_assignments.is_active IS 'Whether the assignment is active (not archived); false for a deleted one';
COMMENT ON COLUMN directory.deleted_assignments.is_project_manager IS 'Whether the user manages this project';
COMMENT ON COLUMN directory.deleted_assignments.use_default_rates IS 'Whether the user''s default rates apply to this project';
COMMENT ON COLUMN directory.deleted_assignments.created_at IS 'When the assignment was created in Harvest';
COMMENT ON COLUMN directory.deleted_assignments.updated_at IS 'Harvest''s time of the last change, in whole seconds; some changes do not update it';
COMMENT ON COLUMN directory.deleted_assignments.version IS '1 when first seen, incremented with each event';
COMMENT ON COLUMN directory.deleted_assignments.synced_at IS 'When this row was last written';
COMMENT ON COLUMN directory.deleted_assignments.deleted_at IS 'When the deletion was confirmed; null while Harvest has the assignment';
COMMENT ON COLUMN directory.projects.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.projects.id IS 'Harvest''s id of the project';
COMMENT ON COLUMN directory.projects.name IS 'Name of the project';
COMMENT ON COLUMN directory.projects.code IS 'Code of the project; null or empty if it has none';
COMMENT ON COLUMN directory.projects.seen_at IS 'When this name or code was first seen';
COMMENT ON COLUMN directory.active_assignments.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.active_assignments.id IS 'Harvest''s id of the assignment, unique within the account';
COMMENT ON COLUMN directory.active_assignments.user_id IS 'Harvest''s id of the user';
COMMENT ON COLUMN directory.active_assignments.user_name IS 'First and last name';
COMMENT ON COLUMN directory.active_assignments.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN directory.active_assignments.project_id IS 'The project: roster.projects.id';
COMMENT ON COLUMN directory.active_assignments.project_name IS 'Name of the project, as last seen';
COMMENT ON COLUMN directory.active_assignments.project_code IS 'Code of the project, as last seen';
COMMENT ON COLUMN directory.active_assignments.is_project_manager IS 'Whether the user manages this project';
COMMENT ON COLUMN directory.active_assignments.created_at IS 'When the assignment was created in Harvest';
COMMENT ON COLUMN directory.active_assignments.updated_at IS 'Harvest''s time of the last change, in whole seconds; some changes do not update it';
COMMENT ON COLUMN directory.active_assignments.version IS '1 when first seen, incremented with each event';
COMMENT ON COLUMN directory.events.seq IS 'Position: 1, 2, 3 … in commit order over all accounts';
COMMENT ON COLUMN directory.events.id IS 'UUIDv5 of stream, aggregate and version: a retried change keeps its id';
COMMENT ON COLUMN directory.events.aggregatetype IS 'user, user_assignment or, with rates.histories, billable_rate or cost_rate';
COMMENT ON COLUMN directory.events.aggregateid IS 'ACCOUNT/ID: account and Harvest''s id of the record';
COMMENT ON COLUMN directory.events.type IS 'Type of the event: aggregatetype, a dot, and created, updated, deactivated, reactivated or deleted';
COMMENT ON COLUMN directory.events.payload IS 'The change: account_id, id, type, version, changed, before, after, cycle_id, mode, request, stream_id; without pay data';
COMMENT ON COLUMN directory.events.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.events.version IS 'Version of the record after this change: 1, 2, 3 … for each record';
COMMENT ON COLUMN directory.events.occurred_at IS 'Harvest''s updated_at; for a deletion, when it was confirmed';
COMMENT ON COLUMN directory.events.recorded_at IS 'When the event was written, by the database''s clock';
COMMENT ON COLUMN directory.events.record_id IS 'Harvest''s id of the record';
COMMENT ON COLUMN directory.sync_status.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.sync_status.account_name IS 'Name of the company';
COMMENT ON COLUMN directory.sync_status.resource IS 'users or user_assignments';
COMMENT ON COLUMN directory.sync_status.last_attempt_at IS 'Start of the last recorded read';
COMMENT ON COLUMN directory.sync_status.last_success_at IS 'End of the last complete read; written at most once a minute while nothing changes';
COMMENT ON COLUMN directory.sync_status.watermark IS 'Time at the start of the last complete read: the earlier of Harvest''s clock and rosterd''s; null before the first';
COMMENT ON COLUMN directory.sync_status.lag IS 'Time since the last recorded complete read; while nothing changes it is recorded once a minute';
COMMENT ON COLUMN directory.sync_status.rows IS 'Number of records in the mirror, without deleted ones';
COMMENT ON COLUMN directory.sync_status.next_full_at IS 'When the next full read is due';
COMMENT ON COLUMN directory.sync_status.held_deletions IS 'Number of deletions held for review';
COMMENT ON COLUMN directory.sync_status.rejected_records IS 'Number of quarantined records';
COMMENT ON COLUMN directory.sync_status.last_error IS 'Error of the account''s last cycle; null if it succeeded';
COMMENT ON COLUMN directory.administrators.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.administrators.id IS 'Harvest''s id of the user, unique within the account';
COMMENT ON COLUMN directory.administrators.first_name IS 'First name';
COMMENT ON COLUMN directory.administrators.last_name IS 'Last name';
COMMENT ON COLUMN directory.administrators.name IS 'First and last name';
COMMENT ON COLUMN directory.administrators.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN directory.administrators.telephone IS 'Telephone number; empty if the user has none';
COMMENT ON COLUMN directory.administrators.timezone IS 'Time zone by its Rails name, such as Eastern Time (US & Canada); not an IANA name';
COMMENT ON COLUMN directory.administrators.weekly_capacity IS 'Working time per week, in seconds';
COMMENT ON COLUMN directory.administrators.has_access_to_all_future_projects IS 'Whether Harvest assigns this user to every new project automatically';
COMMENT ON COLUMN directory.administrators.is_contractor IS 'Whether the user is a contractor';
COMMENT ON COLUMN directory.administrators.is_active IS 'Whether the user is active (not archived); false for a deleted user';
COMMENT ON COLUMN directory.administrators.roles IS 'Names of the user''s job roles; a set, without rights';
COMMENT ON COLUMN directory.administrators.access_roles IS 'Access roles, such as administrator, manager, member; an open set';
COMMENT ON COLUMN directory.administrators.permissions_claims IS 'Permission claims, such as timers:read:own; an open set, undocumented by Harvest';
COMMENT ON COLUMN directory.administrators.is_admin IS 'Whether the user is an administrator: as sent, otherwise derived from access_roles';
COMMENT ON COLUMN directory.administrators.is_project_manager IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.administrators.can_see_rates IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.administrators.can_create_projects IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.administrators.can_create_invoices IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.administrators.calendar_integration_enabled IS 'Whether a calendar is connected; undocumented by Harvest';
COMMENT ON COLUMN directory.administrators.calendar_integration_source IS 'Which calendar is connected, such as google; undocumented by Harvest';
COMMENT ON COLUMN directory.administrators.employee_id IS 'Employee number, if the account uses it; undocumented by Harvest';
COMMENT ON COLUMN directory.administrators.avatar_url IS 'Address of the user''s picture; changes of it emit no event';
COMMENT ON COLUMN directory.administrators.created_at IS 'When the user was created in Harvest';
COMMENT ON COLUMN directory.administrators.updated_at IS 'Harvest''s time of the last change, in whole seconds; some changes do not update it';
COMMENT ON COLUMN directory.administrators.version IS '1 when first seen, incremented with each event';
COMMENT ON COLUMN directory.administrators.synced_at IS 'When this row was last written';
COMMENT ON COLUMN directory.contractors.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.contractors.id IS 'Harvest''s id of the user, unique within the account';
COMMENT ON COLUMN directory.contractors.first_name IS 'First name';
COMMENT ON COLUMN directory.contractors.last_name IS 'Last name';
COMMENT ON COLUMN directory.contractors.name IS 'First and last name';
COMMENT ON COLUMN directory.contractors.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN directory.contractors.telephone IS 'Telephone number; empty if the user has none';
COMMENT ON COLUMN directory.contractors.timezone IS 'Time zone by its Rails name, such as Eastern Time (US & Canada); not an IANA name';
COMMENT ON COLUMN directory.contractors.weekly_capacity IS 'Working time per week, in seconds';
COMMENT ON COLUMN directory.contractors.has_access_to_all_future_projects IS 'Whether Harvest assigns this user to every new project automatically';
COMMENT ON COLUMN directory.contractors.is_contractor IS 'Whether the user is a contractor';
COMMENT ON COLUMN directory.contractors.is_active IS 'Whether the user is active (not archived); false for a deleted user';
COMMENT ON COLUMN directory.contractors.roles IS 'Names of the user''s job roles; a set, without rights';
COMMENT ON COLUMN directory.contractors.access_roles IS 'Access roles, such as administrator, manager, member; an open set';
COMMENT ON COLUMN directory.contractors.permissions_claims IS 'Permission claims, such as timers:read:own; an open set, undocumented by Harvest';
COMMENT ON COLUMN directory.contractors.is_admin IS 'Whether the user is an administrator: as sent, otherwise derived from access_roles';
COMMENT ON COLUMN directory.contractors.is_project_manager IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.contractors.can_see_rates IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.contractors.can_create_projects IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.contractors.can_create_invoices IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.contractors.calendar_integration_enabled IS 'Whether a calendar is connected; undocumented by Harvest';
COMMENT ON COLUMN directory.contractors.calendar_integration_source IS 'Which calendar is connected, such as google; undocumented by Harvest';
COMMENT ON COLUMN directory.contractors.employee_id IS 'Employee number, if the account uses it; undocumented by Harvest';
COMMENT ON COLUMN directory.contractors.avatar_url IS 'Address of the user''s picture; changes of it emit no event';
COMMENT ON COLUMN directory.contractors.created_at IS 'When the user was created in Harvest';
COMMENT ON COLUMN directory.contractors.updated_at IS 'Harvest''s time of the last change, in whole seconds; some changes do not update it';
COMMENT ON COLUMN directory.contractors.version IS '1 when first seen, incremented with each event';
COMMENT ON COLUMN directory.contractors.synced_at IS 'When this row was last written';
COMMENT ON COLUMN directory.people_without_assignments.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.people_without_assignments.id IS 'Harvest''s id of the user, unique within the account';
COMMENT ON COLUMN directory.people_without_assignments.first_name IS 'First name';
COMMENT ON COLUMN directory.people_without_assignments.last_name IS 'Last name';
COMMENT ON COLUMN directory.people_without_assignments.name IS 'First and last name';
COMMENT ON COLUMN directory.people_without_assignments.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN directory.people_without_assignments.telephone IS 'Telephone number; empty if the user has none';
COMMENT ON COLUMN directory.people_without_assignments.timezone IS 'Time zone by its Rails name, such as Eastern Time (US & Canada); not an IANA name';
COMMENT ON COLUMN directory.people_without_assignments.weekly_capacity IS 'Working time per week, in seconds';
COMMENT ON COLUMN directory.people_without_assignments.has_access_to_all_future_projects IS 'Whether Harvest assigns this user to every new project automatically';
COMMENT ON COLUMN directory.people_without_assignments.is_contractor IS 'Whether the user is a contractor';
COMMENT ON COLUMN directory.people_without_assignments.is_active IS 'Whether the user is active (not archived); false for a deleted user';
COMMENT ON COLUMN directory.people_without_assignments.roles IS 'Names of the user''s job roles; a set, without rights';
COMMENT ON COLUMN directory.people_without_assignments.access_roles IS 'Access roles, such as administrator, manager, member; an open set';
COMMENT ON COLUMN directory.people_without_assignments.permissions_claims IS 'Permission claims, such as timers:read:own; an open set, undocumented by Harvest';
COMMENT ON COLUMN directory.people_without_assignments.is_admin IS 'Whether the user is an administrator: as sent, otherwise derived from access_roles';
COMMENT ON COLUMN directory.people_without_assignments.is_project_manager IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.people_without_assignments.can_see_rates IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.people_without_assignments.can_create_projects IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.people_without_assignments.can_create_invoices IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.people_without_assignments.calendar_integration_enabled IS 'Whether a calendar is connected; undocumented by Harvest';
COMMENT ON COLUMN directory.people_without_assignments.calendar_integration_source IS 'Which calendar is connected, such as google; undocumented by Harvest';
COMMENT ON COLUMN directory.people_without_assignments.employee_id IS 'Employee number, if the account uses it; undocumented by Harvest';
COMMENT ON COLUMN directory.people_without_assignments.avatar_url IS 'Address of the user''s picture; changes of it emit no event';
COMMENT ON COLUMN directory.people_without_assignments.created_at IS 'When the user was created in Harvest';
COMMENT ON COLUMN directory.people_without_assignments.updated_at IS 'Harvest''s time of the last change, in whole seconds; some changes do not update it';
COMMENT ON COLUMN directory.people_without_assignments.version IS '1 when first seen, incremented with each event';
COMMENT ON COLUMN directory.people_without_assignments.synced_at IS 'When this row was last written';
COMMENT ON COLUMN directory.inactive_people_still_assigned.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.inactive_people_still_assigned.user_id IS 'Harvest''s id of the user';
COMMENT ON COLUMN directory.inactive_people_still_assigned.user_name IS 'First and last name';
COMMENT ON COLUMN directory.inactive_people_still_assigned.user_deleted_at IS 'When the user''s deletion was confirmed; null while Harvest has the user';
COMMENT ON COLUMN directory.inactive_people_still_assigned.assignment_id IS 'Harvest''s id of the assignment';
COMMENT ON COLUMN directory.inactive_people_still_assigned.project_id IS 'The project: roster.projects.id';
COMMENT ON COLUMN directory.inactive_people_still_assigned.project_name IS 'Name of the project, as last seen';
COMMENT ON COLUMN directory.capacity.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.capacity.user_id IS 'Harvest''s id of the user';
COMMENT ON COLUMN directory.capacity.user_name IS 'First and last name';
COMMENT ON COLUMN directory.capacity.weekly_capacity IS 'Working time per week, in seconds';
COMMENT ON COLUMN directory.capacity.active_assignments IS 'Number of the user''s active assignments';
COMMENT ON COLUMN directory.capacity.weekly_capacity_each IS 'Working time per week for each active assignment, in seconds; null without assignments';
COMMENT ON COLUMN directory.duplicate_emails.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.duplicate_emails.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN directory.duplicate_emails.people IS 'Number of users with this address';
COMMENT ON COLUMN directory.duplicate_emails.user_ids IS 'Ids of these users';
COMMENT ON COLUMN directory.v1_user_assignments.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.v1_user_assignments.id IS 'Harvest''s id of the assignment, unique within the account';
COMMENT ON COLUMN directory.v1_user_assignments.user_id IS 'Harvest''s id of the user';
COMMENT ON COLUMN directory.v1_user_assignments.project_id IS 'The project: roster.projects.id';
COMMENT ON COLUMN directory.v1_user_assignments.deactivated IS 'Whether the assignment is archived: is_active, inverted';
COMMENT ON COLUMN directory.v1_user_assignments.is_project_manager IS 'Whether the user manages this project';
COMMENT ON COLUMN directory.v1_user_assignments.hourly_rate IS 'Always null, because readers do not see pay data';
COMMENT ON COLUMN directory.v1_user_assignments.budget IS 'Always null, because readers do not see pay data';
COMMENT ON COLUMN directory.v1_user_assignments.estimate IS 'Always null, because API v2 has no estimates';
COMMENT ON COLUMN directory.v1_user_assignments.created_at IS 'When the assignment was created in Harvest';
COMMENT ON COLUMN directory.v1_user_assignments.updated_at IS 'Harvest''s time of the last change, in whole seconds; some changes do not update it';
