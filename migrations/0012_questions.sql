-- Every question of docs/CONSUMING.md finds its rows by an index, also where a company has a million assignments; and what is
-- old may be dropped from the history, which then says from when on it is whole.

CREATE INDEX users_administrators ON roster.users (account_id)
    WHERE deleted_at IS NULL AND is_active AND ('administrator' = ANY (access_roles) OR is_admin);
CREATE INDEX users_inactive ON roster.users (account_id) WHERE NOT is_active;
-- Who is on how many projects, and on which, without a look at the table.
CREATE INDEX user_assignments_active ON roster.user_assignments (account_id, user_id) INCLUDE (id, project_id) WHERE is_active;
CREATE INDEX user_history_administrators ON roster.user_history (account_id) WHERE 'administrator' = ANY (access_roles);
CREATE INDEX user_assignment_history_user ON roster.user_assignment_history (account_id, user_id);
-- By the day of directory.joiners and directory.leavers.
CREATE INDEX user_history_joined ON roster.user_history (account_id,
        ((CASE WHEN version = 1 THEN coalesce(created_at, occurred_at) ELSE occurred_at END AT TIME ZONE 'UTC')::date))
    WHERE type IN ('user.created', 'user.reactivated') AND is_active;
CREATE INDEX user_history_left ON roster.user_history (account_id, ((occurred_at AT TIME ZONE 'UTC')::date))
    WHERE type IN ('user.deactivated', 'user.deleted');
-- For dropping what is old.
CREATE INDEX user_history_ended ON roster.user_history (valid_to) WHERE valid_to IS NOT NULL;
CREATE INDEX user_assignment_history_ended ON roster.user_assignment_history (valid_to) WHERE valid_to IS NOT NULL;

ALTER TABLE roster.accounts ADD COLUMN history_since timestamptz DEFAULT clock_timestamp();
COMMENT ON COLUMN roster.accounts.history_since IS 'From when on the history is whole; moves when retention drops old versions';
-- A record whose first version is not there is known from its oldest one on.
UPDATE roster.accounts AS account
   SET history_since = coalesce(
       (SELECT max(known.since) FROM (
            SELECT min(valid_from) AS since FROM roster.user_history AS past WHERE past.account_id = account.account_id
             GROUP BY id HAVING min(version) > 1
            UNION ALL
            SELECT min(valid_from) FROM roster.user_assignment_history AS past WHERE past.account_id = account.account_id
             GROUP BY id HAVING min(version) > 1) AS known),
       (SELECT min(valid_from) FROM roster.user_history AS past WHERE past.account_id = account.account_id),
       clock_timestamp());

CREATE OR REPLACE VIEW directory.accounts AS
SELECT account_id, name, last_success_at, last_full_at, history_since FROM roster.accounts;
COMMENT ON COLUMN directory.accounts.history_since IS 'From when on users_as_of and assignments_as_of know everybody';

-- With names, as the other views of people have them. The function gives what its view shows.
CREATE OR REPLACE VIEW directory.user_history AS
SELECT account_id, id, version, type, valid_from, valid_to, occurred_at, first_name, last_name, email, telephone, timezone,
       weekly_capacity, has_access_to_all_future_projects, is_contractor, is_active, roles, access_roles, permissions_claims,
       is_admin, is_project_manager, can_see_rates, can_create_projects, can_create_invoices, calendar_integration_enabled,
       calendar_integration_source, employee_id, created_at,
       concat_ws(' ', nullif(first_name, ''), nullif(last_name, '')) AS name
  FROM roster.user_history;
COMMENT ON COLUMN directory.user_history.name IS 'First and last name';
CREATE OR REPLACE FUNCTION directory.users_as_of(at timestamptz) RETURNS SETOF directory.user_history
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT * FROM directory.user_history
     WHERE valid_from <= at AND (valid_to IS NULL OR valid_to > at) AND type <> 'user.deleted';
END;

-- Counted person by person, which for one of them is one look.
CREATE OR REPLACE VIEW directory.capacity AS
SELECT person.account_id, person.id AS user_id, person.name AS user_name, person.weekly_capacity, place.active_assignments,
       round(person.weekly_capacity / nullif(place.active_assignments, 0)::numeric) AS weekly_capacity_each
  FROM directory.active_users AS person
 CROSS JOIN LATERAL (SELECT count(*) AS active_assignments FROM roster.user_assignments AS place
                      WHERE (place.account_id, place.user_id) = (person.account_id, person.id) AND place.is_active) AS place;

COMMENT ON TABLE roster.outbox IS 'Every change, in commit order, gapless by seq; retention deletes the oldest, and nothing but rosterd forget changes a row';
