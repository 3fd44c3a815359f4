-- Versions of users and assignments that ended, for questions about the past. The current version is the row of the
-- mirror. The transaction that changes a row copies its old version here first, so none can be missing.

CREATE TABLE roster.user_history (
    account_id                        bigint      NOT NULL,
    id                                bigint      NOT NULL,
    version                           bigint      NOT NULL,
    event_type                        text        NOT NULL,
    valid_from                        timestamptz NOT NULL,
    valid_to                          timestamptz NOT NULL,
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

COMMENT ON TABLE roster.user_history IS 'Versions of users that ended; the current ones are in roster.users. Contains pay data';
COMMENT ON COLUMN roster.user_history.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.user_history.id IS 'Harvest''s id of the user, unique within the account';
COMMENT ON COLUMN roster.user_history.version IS 'Version of the record: 1, 2, 3 …';
COMMENT ON COLUMN roster.user_history.event_type IS 'Type of the event that created this version, such as user.updated';
COMMENT ON COLUMN roster.user_history.valid_from IS 'When the mirror stored this version';
COMMENT ON COLUMN roster.user_history.valid_to IS 'When the next version replaced it';
COMMENT ON COLUMN roster.user_history.occurred_at IS 'Harvest''s time of the change; for a deletion, when it was confirmed';
COMMENT ON COLUMN roster.user_history.first_name IS 'First name';
COMMENT ON COLUMN roster.user_history.last_name IS 'Last name';
COMMENT ON COLUMN roster.user_history.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN roster.user_history.telephone IS 'Telephone number; empty if the user has none';
COMMENT ON COLUMN roster.user_history.timezone IS 'Time zone by its Rails name, such as Eastern Time (US & Canada); not an IANA name';
COMMENT ON COLUMN roster.user_history.weekly_capacity IS 'Working time per week, in seconds';
COMMENT ON COLUMN roster.user_history.has_access_to_all_future_projects IS 'Whether Harvest assigns this user to every new project automatically';
COMMENT ON COLUMN roster.user_history.is_contractor IS 'Whether the user is a contractor';
COMMENT ON COLUMN roster.user_history.is_active IS 'Whether the user is active (not archived); false for a deleted user';
COMMENT ON COLUMN roster.user_history.roles IS 'Names of the user''s job roles; a set, without rights';
COMMENT ON COLUMN roster.user_history.access_roles IS 'Access roles, such as administrator, manager, member; an open set';
COMMENT ON COLUMN roster.user_history.permissions_claims IS 'Permission claims, such as timers:read:own; an open set, undocumented by Harvest';
COMMENT ON COLUMN roster.user_history.is_admin IS 'Whether the user is an administrator: as sent, otherwise derived from access_roles';
COMMENT ON COLUMN roster.user_history.is_project_manager IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN roster.user_history.can_see_rates IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN roster.user_history.can_create_projects IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN roster.user_history.can_create_invoices IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN roster.user_history.calendar_integration_enabled IS 'Whether a calendar is connected; undocumented by Harvest';
COMMENT ON COLUMN roster.user_history.calendar_integration_source IS 'Which calendar is connected, such as google; undocumented by Harvest';
COMMENT ON COLUMN roster.user_history.employee_id IS 'Employee number, if the account uses it; undocumented by Harvest';
COMMENT ON COLUMN roster.user_history.default_hourly_rate IS 'Billable rate an hour, in the account''s currency; pay';
COMMENT ON COLUMN roster.user_history.cost_rate IS 'Cost an hour, in the account''s currency; pay';
COMMENT ON COLUMN roster.user_history.created_at IS 'When the user was created in Harvest';

CREATE TABLE roster.user_assignment_history (
    account_id         bigint      NOT NULL,
    id                 bigint      NOT NULL,
    version            bigint      NOT NULL,
    event_type         text        NOT NULL,
    valid_from         timestamptz NOT NULL,
    valid_to           timestamptz NOT NULL,
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

COMMENT ON TABLE roster.user_assignment_history IS 'Versions of assignments that ended; the current ones are in roster.user_assignments. Contains pay data';
COMMENT ON COLUMN roster.user_assignment_history.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.user_assignment_history.id IS 'Harvest''s id of the assignment, unique within the account';
COMMENT ON COLUMN roster.user_assignment_history.version IS 'Version of the record: 1, 2, 3 …';
COMMENT ON COLUMN roster.user_assignment_history.event_type IS 'Type of the event that created this version, such as user_assignment.updated';
COMMENT ON COLUMN roster.user_assignment_history.valid_from IS 'When the mirror stored this version';
COMMENT ON COLUMN roster.user_assignment_history.valid_to IS 'When the next version replaced it';
COMMENT ON COLUMN roster.user_assignment_history.occurred_at IS 'Harvest''s time of the change; for a deletion, when it was confirmed';
COMMENT ON COLUMN roster.user_assignment_history.user_id IS 'Harvest''s id of the user';
COMMENT ON COLUMN roster.user_assignment_history.project_id IS 'The project: roster.projects.id';
COMMENT ON COLUMN roster.user_assignment_history.is_active IS 'Whether the assignment is active (not archived); false for a deleted one';
COMMENT ON COLUMN roster.user_assignment_history.is_project_manager IS 'Whether the user manages this project';
COMMENT ON COLUMN roster.user_assignment_history.use_default_rates IS 'Whether the user''s default rates apply to this project';
COMMENT ON COLUMN roster.user_assignment_history.hourly_rate IS 'Billable rate per hour on this project; pay data';
COMMENT ON COLUMN roster.user_assignment_history.budget IS 'Budget of the user on this project; pay data';
COMMENT ON COLUMN roster.user_assignment_history.created_at IS 'When the assignment was created in Harvest';

CREATE INDEX user_history_time ON roster.user_history (valid_to);
CREATE INDEX user_history_administrators ON roster.user_history (account_id) WHERE 'administrator' = ANY (access_roles);
CREATE INDEX user_history_joined ON roster.user_history (account_id,
        ((CASE WHEN version = 1 THEN coalesce(created_at, occurred_at) ELSE occurred_at END AT TIME ZONE 'UTC')::date))
    WHERE event_type IN ('user.created', 'user.reactivated') AND is_active;
CREATE INDEX users_joined ON roster.users (account_id,
        ((CASE WHEN version = 1 THEN coalesce(created_at, occurred_at) ELSE occurred_at END AT TIME ZONE 'UTC')::date))
    WHERE event_type IN ('user.created', 'user.reactivated') AND is_active;
CREATE INDEX user_history_left ON roster.user_history (account_id, ((occurred_at AT TIME ZONE 'UTC')::date))
    WHERE event_type IN ('user.deactivated', 'user.deleted');
CREATE INDEX users_left ON roster.users (account_id, ((occurred_at AT TIME ZONE 'UTC')::date))
    WHERE event_type IN ('user.deactivated', 'user.deleted');
CREATE INDEX user_assignment_history_time ON roster.user_assignment_history (valid_to);
CREATE INDEX user_assignment_history_project ON roster.user_assignment_history (account_id, project_id);
CREATE INDEX user_assignment_history_user ON roster.user_assignment_history (account_id, user_id);

COMMENT ON INDEX roster.user_history_time IS 'Question: who was there at a past time (users_as_of); and retention';
COMMENT ON INDEX roster.user_history_administrators IS 'Question: who was an administrator at a past time';
COMMENT ON INDEX roster.user_history_joined IS 'Question: who joined, by day (directory.joiners)';
COMMENT ON INDEX roster.users_joined IS 'Question: who joined, by day (directory.joiners)';
COMMENT ON INDEX roster.user_history_left IS 'Question: who left, by day (directory.leavers)';
COMMENT ON INDEX roster.users_left IS 'Question: who left, by day (directory.leavers)';
COMMENT ON INDEX roster.user_assignment_history_time IS 'Question: which teams existed at a past time (assignments_as_of); and retention';
COMMENT ON INDEX roster.user_assignment_history_project IS 'Question: who was on this project';
COMMENT ON INDEX roster.user_assignment_history_user IS 'Question: on which projects was this user; and `rosterd forget user`';

-- From history_since on, the history is complete. Users who were active at the end of the first full read are not joiners:
-- rosterd cannot know who joined and left before it.

ALTER TABLE roster.accounts
    ADD COLUMN history_since timestamptz DEFAULT clock_timestamp()
        CONSTRAINT accounts_history_since CHECK (history_since > '-infinity' AND history_since < '10001-01-01'),
    ADD COLUMN first_full_at timestamptz
        CONSTRAINT accounts_first_full_at CHECK (first_full_at > '-infinity' AND first_full_at < '10001-01-01');
COMMENT ON COLUMN roster.accounts.history_since IS 'Time from which the history is complete; updated when retention drops old versions';
COMMENT ON COLUMN roster.accounts.first_full_at IS 'End of the first full read; joiners and leavers are known from this time on';

CREATE OR REPLACE VIEW directory.accounts AS
SELECT account_id, name, last_success_at, last_full_at, history_since, first_full_at FROM roster.accounts;
COMMENT ON COLUMN directory.accounts.history_since IS 'Time from which the history is complete';
COMMENT ON COLUMN directory.accounts.first_full_at IS 'End of the first full read; joiners and leavers are known from this time on; null before';

-- For readers, without pay data.

CREATE VIEW directory.user_history AS
SELECT account_id, id, version, event_type AS type, valid_from, valid_to, occurred_at, first_name, last_name, email, telephone,
       timezone, weekly_capacity, has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles,
       permissions_claims, is_admin, is_project_manager, can_see_rates, can_create_projects, can_create_invoices,
       calendar_integration_enabled, calendar_integration_source, employee_id, created_at,
       concat_ws(' ', nullif(first_name, ''), nullif(last_name, '')) AS name
  FROM roster.user_history
UNION ALL
SELECT account_id, id, version, event_type, valid_from, NULL, occurred_at, first_name, last_name, email, telephone,
       timezone, weekly_capacity, has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles,
       permissions_claims, is_admin, is_project_manager, can_see_rates, can_create_projects, can_create_invoices,
       calendar_integration_enabled, calendar_integration_source, employee_id, created_at,
       concat_ws(' ', nullif(first_name, ''), nullif(last_name, ''))
  FROM roster.users;
CREATE VIEW directory.assignment_history AS
SELECT account_id, id, version, event_type AS type, valid_from, valid_to, occurred_at, user_id, project_id, is_active,
       is_project_manager, use_default_rates, created_at
  FROM roster.user_assignment_history
UNION ALL
SELECT account_id, id, version, event_type, valid_from, NULL, occurred_at, user_id, project_id, is_active, is_project_manager,
       use_default_rates, created_at
  FROM roster.user_assignments;

-- The planner inlines these SQL functions, so a query for one user's past uses an index.
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
COMMENT ON FUNCTION directory.users_as_of IS 'Users as the mirror had them at that time, without deleted ones';
COMMENT ON FUNCTION directory.assignments_as_of IS 'Assignments as the mirror had them at that time, without deleted ones';

CREATE VIEW directory.all_joiners AS
SELECT past.account_id, past.id AS user_id, past.name AS user_name, past.email,
       -- By day, because Harvest's clock and the database's differ. A user created on a day before the first read
       -- existed at the first read, even if the token could not see the user then.
       CASE WHEN past.version = 1 AND (account.first_full_at IS NULL OR past.valid_from <= account.first_full_at
                                       OR past.created_at < date_trunc('day', account.first_full_at, 'UTC'))
            THEN 'initial' ELSE past.type END AS how,
       -- A user who is restored after a deletion keeps the old created_at.
       (CASE WHEN past.version = 1 THEN coalesce(past.created_at, past.occurred_at) ELSE past.occurred_at END
        AT TIME ZONE 'UTC')::date AS day
  FROM directory.user_history AS past
  LEFT JOIN roster.accounts AS account ON account.account_id = past.account_id
 WHERE past.type IN ('user.created', 'user.reactivated') AND past.is_active;
CREATE VIEW directory.joiners AS
SELECT account_id, user_id, user_name, email, how, day FROM directory.all_joiners WHERE how <> 'initial';
-- Deleted while active: the version before, which is always an ended one, was active.
CREATE VIEW directory.leavers AS
SELECT account_id, id AS user_id, name AS user_name, email, type AS how, (occurred_at AT TIME ZONE 'UTC')::date AS day
  FROM directory.user_history AS left_
 WHERE type IN ('user.deactivated', 'user.deleted')
   AND (type = 'user.deactivated' OR (SELECT before.is_active FROM roster.user_history AS before
                                       WHERE before.account_id = left_.account_id AND before.id = left_.id
                                         AND before.version = left_.version - 1));
CREATE VIEW directory.joiners_and_leavers_by_day AS
SELECT account_id, day, sum(joined) AS joined, sum(gone) AS gone
  FROM (SELECT account_id, day, 1 AS joined, 0 AS gone FROM directory.joiners
        UNION ALL SELECT account_id, day, 0, 1 FROM directory.leavers) AS moves
 GROUP BY account_id, day;

COMMENT ON VIEW directory.user_history IS 'Every version of every user, without pay data';
COMMENT ON COLUMN directory.user_history.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.user_history.id IS 'Harvest''s id of the user, unique within the account';
COMMENT ON COLUMN directory.user_history.version IS 'Version of the record: 1, 2, 3 …';
COMMENT ON COLUMN directory.user_history.type IS 'Type of the event that created this version, such as user.updated';
COMMENT ON COLUMN directory.user_history.valid_from IS 'When the mirror stored this version';
COMMENT ON COLUMN directory.user_history.valid_to IS 'When the next version replaced it; null for the current version';
COMMENT ON COLUMN directory.user_history.occurred_at IS 'Harvest''s time of the change; for a deletion, when it was confirmed';
COMMENT ON COLUMN directory.user_history.first_name IS 'First name';
COMMENT ON COLUMN directory.user_history.last_name IS 'Last name';
COMMENT ON COLUMN directory.user_history.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN directory.user_history.telephone IS 'Telephone number; empty if the user has none';
COMMENT ON COLUMN directory.user_history.timezone IS 'Time zone by its Rails name, such as Eastern Time (US & Canada); not an IANA name';
COMMENT ON COLUMN directory.user_history.weekly_capacity IS 'Working time per week, in seconds';
COMMENT ON COLUMN directory.user_history.has_access_to_all_future_projects IS 'Whether Harvest assigns this user to every new project automatically';
COMMENT ON COLUMN directory.user_history.is_contractor IS 'Whether the user is a contractor';
COMMENT ON COLUMN directory.user_history.is_active IS 'Whether the user is active (not archived); false for a deleted user';
COMMENT ON COLUMN directory.user_history.roles IS 'Names of the user''s job roles; a set, without rights';
COMMENT ON COLUMN directory.user_history.access_roles IS 'Access roles, such as administrator, manager, member; an open set';
COMMENT ON COLUMN directory.user_history.permissions_claims IS 'Permission claims, such as timers:read:own; an open set, undocumented by Harvest';
COMMENT ON COLUMN directory.user_history.is_admin IS 'Whether the user is an administrator: as sent, otherwise derived from access_roles';
COMMENT ON COLUMN directory.user_history.is_project_manager IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.user_history.can_see_rates IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.user_history.can_create_projects IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.user_history.can_create_invoices IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN directory.user_history.calendar_integration_enabled IS 'Whether a calendar is connected; undocumented by Harvest';
COMMENT ON COLUMN directory.user_history.calendar_integration_source IS 'Which calendar is connected, such as google; undocumented by Harvest';
COMMENT ON COLUMN directory.user_history.employee_id IS 'Employee number, if the account uses it; undocumented by Harvest';
COMMENT ON COLUMN directory.user_history.created_at IS 'When the user was created in Harvest';
COMMENT ON COLUMN directory.user_history.name IS 'First and last name';
COMMENT ON VIEW directory.assignment_history IS 'Every version of every assignment, without pay data';
COMMENT ON COLUMN directory.assignment_history.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.assignment_history.id IS 'Harvest''s id of the assignment, unique within the account';
COMMENT ON COLUMN directory.assignment_history.version IS 'Version of the record: 1, 2, 3 …';
COMMENT ON COLUMN directory.assignment_history.type IS 'Type of the event that created this version, such as user.updated';
COMMENT ON COLUMN directory.assignment_history.valid_from IS 'When the mirror stored this version';
COMMENT ON COLUMN directory.assignment_history.valid_to IS 'When the next version replaced it; null for the current version';
COMMENT ON COLUMN directory.assignment_history.occurred_at IS 'Harvest''s time of the change; for a deletion, when it was confirmed';
COMMENT ON COLUMN directory.assignment_history.user_id IS 'Harvest''s id of the user';
COMMENT ON COLUMN directory.assignment_history.project_id IS 'The project: roster.projects.id';
COMMENT ON COLUMN directory.assignment_history.is_active IS 'Whether the assignment is active (not archived); false for a deleted one';
COMMENT ON COLUMN directory.assignment_history.is_project_manager IS 'Whether the user manages this project';
COMMENT ON COLUMN directory.assignment_history.use_default_rates IS 'Whether the user''s default rates apply to this project';
COMMENT ON COLUMN directory.assignment_history.created_at IS 'When the assignment was created in Harvest';
COMMENT ON VIEW directory.all_joiners IS 'directory.joiners and, with how = ''initial'', the users who were active at the first read, by the day of their creation';
COMMENT ON COLUMN directory.all_joiners.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.all_joiners.user_id IS 'Harvest''s id of the user';
COMMENT ON COLUMN directory.all_joiners.user_name IS 'First and last name';
COMMENT ON COLUMN directory.all_joiners.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN directory.all_joiners.how IS 'user.created, user.reactivated, or initial (active at the first read)';
COMMENT ON COLUMN directory.all_joiners.day IS 'The day, in UTC';
COMMENT ON VIEW directory.joiners IS 'Users who joined or returned since the first read, by day of Harvest''s clock (UTC)';
COMMENT ON COLUMN directory.joiners.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.joiners.user_id IS 'Harvest''s id of the user';
COMMENT ON COLUMN directory.joiners.user_name IS 'First and last name';
COMMENT ON COLUMN directory.joiners.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN directory.joiners.how IS 'Type of the event, such as user.created or user.deleted';
COMMENT ON COLUMN directory.joiners.day IS 'Day in UTC';
COMMENT ON VIEW directory.leavers IS 'Users who left since the first read (archived, or deleted while active), by day of Harvest''s clock (UTC)';
COMMENT ON COLUMN directory.leavers.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.leavers.user_id IS 'Harvest''s id of the user';
COMMENT ON COLUMN directory.leavers.user_name IS 'First and last name';
COMMENT ON COLUMN directory.leavers.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN directory.leavers.how IS 'Type of the event, such as user.created or user.deleted';
COMMENT ON COLUMN directory.leavers.day IS 'Day in UTC';
COMMENT ON VIEW directory.joiners_and_leavers_by_day IS 'Number of users who joined and left on each day since the first read';
COMMENT ON COLUMN directory.joiners_and_leavers_by_day.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.joiners_and_leavers_by_day.day IS 'Day in UTC';
COMMENT ON COLUMN directory.joiners_and_leavers_by_day.joined IS 'Number of users who joined or returned';
COMMENT ON COLUMN directory.joiners_and_leavers_by_day.gone IS 'Number of users who left';
