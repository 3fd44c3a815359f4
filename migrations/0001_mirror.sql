-- The mirror: Harvest's users, their project assignments, the names of projects and, with rates.histories, the histories
-- of rates. No foreign keys: Harvest may show an assignment before its user. No enums: Harvest's value sets are open.
--
-- rosterd cannot read infinity, years of six digits, NaN, or amounts of more than 28 digits, and Harvest sends none. If an
-- administrator wrote one into the mirror, every cycle that read the row would fail, so checks refuse them.

CREATE SCHEMA IF NOT EXISTS roster;
COMMENT ON SCHEMA roster IS 'rosterd: mirror of Harvest accounts, outbox of changes, and internal state of the daemon';

CREATE TABLE roster.users (
    account_id                        bigint      NOT NULL,
    id                                bigint      NOT NULL,
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
    avatar_url                        text,
    created_at                        timestamptz,
    updated_at                        timestamptz,
    raw                               jsonb       NOT NULL,
    version                           bigint      NOT NULL CHECK (version >= 1),
    content_hash                      bigint      NOT NULL,
    synced_at                         timestamptz NOT NULL,
    deleted_at                        timestamptz,
    event_type                        text        NOT NULL DEFAULT 'user.created',
    valid_from                        timestamptz NOT NULL DEFAULT now(),
    occurred_at                       timestamptz,
    -- With the state, so that counting and listing an account's rows reads only the index.
    PRIMARY KEY (account_id, id) INCLUDE (is_active, deleted_at),
    CHECK (deleted_at IS NULL OR NOT is_active),
    CONSTRAINT users_times CHECK (
            created_at > '-infinity' AND created_at < '10001-01-01'
        AND updated_at > '-infinity' AND updated_at < '10001-01-01'
        AND synced_at > '-infinity' AND synced_at < '10001-01-01'
        AND deleted_at > '-infinity' AND deleted_at < '10001-01-01'
        AND valid_from > '-infinity' AND valid_from < '10001-01-01'
        AND occurred_at > '-infinity' AND occurred_at < '10001-01-01'),
    CONSTRAINT users_amounts CHECK (
            abs(default_hourly_rate) < 7.9e28 AND scale(default_hourly_rate) <= 28
        AND abs(cost_rate) < 7.9e28 AND scale(cost_rate) <= 28)
);

CREATE INDEX users_email ON roster.users (lower(email));
CREATE INDEX users_updated ON roster.users (account_id, updated_at);
CREATE INDEX users_administrators ON roster.users (account_id)
    WHERE 'administrator' = ANY (access_roles) OR is_admin;

COMMENT ON INDEX roster.users_email IS 'Question: which user has this e-mail address';
COMMENT ON INDEX roster.users_updated IS 'Question: which users changed since, by updated_at';
COMMENT ON INDEX roster.users_administrators IS 'Question: who is an administrator (directory.administrators), or was one at a past time';

COMMENT ON TABLE roster.users IS 'Users of each Harvest account, one row each, including deleted ones (deleted_at)';
COMMENT ON COLUMN roster.users.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.users.id IS 'Harvest''s id of the user, unique within the account';
COMMENT ON COLUMN roster.users.first_name IS 'First name';
COMMENT ON COLUMN roster.users.last_name IS 'Last name';
COMMENT ON COLUMN roster.users.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN roster.users.telephone IS 'Telephone number; empty if the user has none';
COMMENT ON COLUMN roster.users.timezone IS 'Time zone by its Rails name, such as Eastern Time (US & Canada); not an IANA name';
COMMENT ON COLUMN roster.users.weekly_capacity IS 'Working time per week, in seconds';
COMMENT ON COLUMN roster.users.has_access_to_all_future_projects IS 'Whether Harvest assigns this user to every new project automatically';
COMMENT ON COLUMN roster.users.is_contractor IS 'Whether the user is a contractor';
COMMENT ON COLUMN roster.users.is_active IS 'Whether the user is active (not archived); false for a deleted user';
COMMENT ON COLUMN roster.users.roles IS 'Names of the user''s job roles; a set, without rights';
COMMENT ON COLUMN roster.users.access_roles IS 'Access roles, such as administrator, manager, member; an open set';
COMMENT ON COLUMN roster.users.permissions_claims IS 'Permission claims, such as timers:read:own; an open set, undocumented by Harvest';
COMMENT ON COLUMN roster.users.is_admin IS 'Whether the user is an administrator: as sent, otherwise derived from access_roles';
COMMENT ON COLUMN roster.users.is_project_manager IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN roster.users.can_see_rates IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN roster.users.can_create_projects IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN roster.users.can_create_invoices IS 'Legacy flag; null if Harvest does not send it';
COMMENT ON COLUMN roster.users.calendar_integration_enabled IS 'Whether a calendar is connected; undocumented by Harvest';
COMMENT ON COLUMN roster.users.calendar_integration_source IS 'Which calendar is connected, such as google; undocumented by Harvest';
COMMENT ON COLUMN roster.users.employee_id IS 'Employee number, if the account uses it; undocumented by Harvest';
COMMENT ON COLUMN roster.users.default_hourly_rate IS 'Billable rate an hour, in the account''s currency; pay';
COMMENT ON COLUMN roster.users.cost_rate IS 'Cost an hour, in the account''s currency; pay';
COMMENT ON COLUMN roster.users.avatar_url IS 'Address of the user''s picture; changes of it emit no event';
COMMENT ON COLUMN roster.users.created_at IS 'When the user was created in Harvest';
COMMENT ON COLUMN roster.users.updated_at IS 'Harvest''s time of the last change, in whole seconds; some changes do not update it';
COMMENT ON COLUMN roster.users.raw IS 'JSON object of the last write as Harvest sent it, including unknown fields; never merged';
COMMENT ON COLUMN roster.users.version IS '1 when first seen, incremented with each event';
COMMENT ON COLUMN roster.users.content_hash IS 'Hash of raw, so that a poll can detect changes without reading the row';
COMMENT ON COLUMN roster.users.synced_at IS 'When this row was last written';
COMMENT ON COLUMN roster.users.deleted_at IS 'When the deletion was confirmed; null while Harvest has the user';
COMMENT ON COLUMN roster.users.event_type IS 'Type of the event that created the current version, such as user.updated';
COMMENT ON COLUMN roster.users.valid_from IS 'When the mirror stored the current version';
COMMENT ON COLUMN roster.users.occurred_at IS 'Harvest''s time of that change; for a deletion, when it was confirmed';

CREATE TABLE roster.user_assignments (
    account_id         bigint      NOT NULL,
    id                 bigint      NOT NULL,
    user_id            bigint,
    project_id         bigint,
    is_active          bool        NOT NULL,
    is_project_manager bool,
    use_default_rates  bool,
    hourly_rate        numeric,
    budget             numeric,
    created_at         timestamptz,
    updated_at         timestamptz,
    raw                jsonb       NOT NULL,
    version            bigint      NOT NULL CHECK (version >= 1),
    content_hash       bigint      NOT NULL,
    synced_at          timestamptz NOT NULL,
    deleted_at         timestamptz,
    event_type         text        NOT NULL DEFAULT 'user_assignment.created',
    valid_from         timestamptz NOT NULL DEFAULT now(),
    occurred_at        timestamptz,
    -- With the state, so that counting and listing an account's rows reads only the index.
    PRIMARY KEY (account_id, id) INCLUDE (is_active, deleted_at),
    CHECK (deleted_at IS NULL OR NOT is_active),
    CONSTRAINT user_assignments_times CHECK (
            created_at > '-infinity' AND created_at < '10001-01-01'
        AND updated_at > '-infinity' AND updated_at < '10001-01-01'
        AND synced_at > '-infinity' AND synced_at < '10001-01-01'
        AND deleted_at > '-infinity' AND deleted_at < '10001-01-01'
        AND valid_from > '-infinity' AND valid_from < '10001-01-01'
        AND occurred_at > '-infinity' AND occurred_at < '10001-01-01'),
    CONSTRAINT user_assignments_amounts CHECK (
            abs(hourly_rate) < 7.9e28 AND scale(hourly_rate) <= 28
        AND abs(budget) < 7.9e28 AND scale(budget) <= 28)
);

CREATE INDEX user_assignments_user ON roster.user_assignments (account_id, user_id);
CREATE INDEX user_assignments_project ON roster.user_assignments (account_id, project_id);
CREATE INDEX user_assignments_updated ON roster.user_assignments (account_id, updated_at);

COMMENT ON INDEX roster.user_assignments_user IS 'Question: on which projects is this user';
COMMENT ON INDEX roster.user_assignments_project IS 'Question: which users are on this project';
COMMENT ON INDEX roster.user_assignments_updated IS 'Question: which assignments changed since, by updated_at';

COMMENT ON TABLE roster.user_assignments IS 'Harvest''s user assignments (which user is on which project), one row each, including deleted ones (deleted_at)';
COMMENT ON COLUMN roster.user_assignments.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.user_assignments.id IS 'Harvest''s id of the assignment, unique within the account';
COMMENT ON COLUMN roster.user_assignments.user_id IS 'The user: roster.users.id';
COMMENT ON COLUMN roster.user_assignments.project_id IS 'The project: roster.projects.id';
COMMENT ON COLUMN roster.user_assignments.is_active IS 'Whether the assignment is active (not archived); false for a deleted one';
COMMENT ON COLUMN roster.user_assignments.is_project_manager IS 'Whether the user manages this project';
COMMENT ON COLUMN roster.user_assignments.use_default_rates IS 'Whether the user''s default rates apply to this project';
COMMENT ON COLUMN roster.user_assignments.hourly_rate IS 'Billable rate per hour on this project; pay data';
COMMENT ON COLUMN roster.user_assignments.budget IS 'Budget of the user on this project; pay data';
COMMENT ON COLUMN roster.user_assignments.created_at IS 'When the assignment was created in Harvest';
COMMENT ON COLUMN roster.user_assignments.updated_at IS 'Harvest''s time of the last change, in whole seconds; some changes do not update it';
COMMENT ON COLUMN roster.user_assignments.raw IS 'JSON object of the last write as Harvest sent it, including unknown fields; never merged';
COMMENT ON COLUMN roster.user_assignments.version IS '1 when first seen, incremented with each event';
COMMENT ON COLUMN roster.user_assignments.content_hash IS 'Hash of raw without the embedded names, so that a poll can detect changes without reading the row';
COMMENT ON COLUMN roster.user_assignments.synced_at IS 'When this row was last written';
COMMENT ON COLUMN roster.user_assignments.deleted_at IS 'When the deletion was confirmed; null while Harvest has the assignment';
COMMENT ON COLUMN roster.user_assignments.event_type IS 'Type of the event that created the current version, such as user_assignment.updated';
COMMENT ON COLUMN roster.user_assignments.valid_from IS 'When the mirror stored the current version';
COMMENT ON COLUMN roster.user_assignments.occurred_at IS 'Harvest''s time of that change; for a deletion, when it was confirmed';

CREATE TABLE roster.projects (
    account_id bigint      NOT NULL,
    id         bigint      NOT NULL,
    name       text,
    code       text,
    seen_at    timestamptz NOT NULL,
    PRIMARY KEY (account_id, id)
);

COMMENT ON TABLE roster.projects IS 'Names of projects, taken from the assignments that refer to them';
COMMENT ON COLUMN roster.projects.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.projects.id IS 'Harvest''s id of the project';
COMMENT ON COLUMN roster.projects.name IS 'Name of the project';
COMMENT ON COLUMN roster.projects.code IS 'Code of the project; null or empty if it has none';
COMMENT ON COLUMN roster.projects.seen_at IS 'When this name or code was first seen';

-- All rates are pay data.

CREATE TABLE roster.billable_rates (
    account_id   bigint      NOT NULL,
    id           bigint      NOT NULL,
    user_id      bigint,
    amount       numeric,
    start_date   date,
    end_date     date,
    created_at   timestamptz,
    updated_at   timestamptz,
    raw          jsonb       NOT NULL,
    version      bigint      NOT NULL CHECK (version >= 1),
    content_hash bigint      NOT NULL,
    synced_at    timestamptz NOT NULL,
    deleted_at   timestamptz,
    PRIMARY KEY (account_id, id),
    CONSTRAINT billable_rates_times CHECK (
            created_at > '-infinity' AND created_at < '10001-01-01'
        AND updated_at > '-infinity' AND updated_at < '10001-01-01'
        AND synced_at > '-infinity' AND synced_at < '10001-01-01'
        AND deleted_at > '-infinity' AND deleted_at < '10001-01-01'
        AND start_date > '-infinity' AND start_date < '10001-01-01'
        AND end_date > '-infinity' AND end_date < '10001-01-01'),
    CONSTRAINT billable_rates_amounts CHECK (abs(amount) < 7.9e28 AND scale(amount) <= 28)
);
CREATE INDEX billable_rates_user ON roster.billable_rates (account_id, user_id);
COMMENT ON INDEX roster.billable_rates_user IS 'The daemon: the rates of a user';

COMMENT ON TABLE roster.billable_rates IS 'History of the billable rates of each user; pay data. Empty unless rates.histories is true';
COMMENT ON COLUMN roster.billable_rates.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.billable_rates.id IS 'Harvest''s id of the rate, unique within the account';
COMMENT ON COLUMN roster.billable_rates.user_id IS 'The user: roster.users.id';
COMMENT ON COLUMN roster.billable_rates.amount IS 'Amount per hour, in the account''s currency; pay data. `rosterd forget` sets amount and dates to null';
COMMENT ON COLUMN roster.billable_rates.start_date IS 'First day; null for the user''s first rate';
COMMENT ON COLUMN roster.billable_rates.end_date IS 'Last day; null for the current rate';
COMMENT ON COLUMN roster.billable_rates.created_at IS 'When the rate was created in Harvest';
COMMENT ON COLUMN roster.billable_rates.updated_at IS 'Harvest''s time of the last change, in whole seconds';
COMMENT ON COLUMN roster.billable_rates.raw IS 'JSON object of the last write as Harvest sent it, including unknown fields; never merged; pay data';
COMMENT ON COLUMN roster.billable_rates.version IS '1 when first seen, incremented with each event';
COMMENT ON COLUMN roster.billable_rates.content_hash IS 'Hash of raw, so that a read can detect changes without reading the row';
COMMENT ON COLUMN roster.billable_rates.synced_at IS 'When this row was last written';
COMMENT ON COLUMN roster.billable_rates.deleted_at IS 'When a 404 confirmed the deletion of the rate or its user; null while Harvest has the rate';

CREATE TABLE roster.cost_rates (
    account_id   bigint      NOT NULL,
    id           bigint      NOT NULL,
    user_id      bigint,
    amount       numeric,
    start_date   date,
    end_date     date,
    created_at   timestamptz,
    updated_at   timestamptz,
    raw          jsonb       NOT NULL,
    version      bigint      NOT NULL CHECK (version >= 1),
    content_hash bigint      NOT NULL,
    synced_at    timestamptz NOT NULL,
    deleted_at   timestamptz,
    PRIMARY KEY (account_id, id),
    CONSTRAINT cost_rates_times CHECK (
            created_at > '-infinity' AND created_at < '10001-01-01'
        AND updated_at > '-infinity' AND updated_at < '10001-01-01'
        AND synced_at > '-infinity' AND synced_at < '10001-01-01'
        AND deleted_at > '-infinity' AND deleted_at < '10001-01-01'
        AND start_date > '-infinity' AND start_date < '10001-01-01'
        AND end_date > '-infinity' AND end_date < '10001-01-01'),
    CONSTRAINT cost_rates_amounts CHECK (abs(amount) < 7.9e28 AND scale(amount) <= 28)
);
CREATE INDEX cost_rates_user ON roster.cost_rates (account_id, user_id);
COMMENT ON INDEX roster.cost_rates_user IS 'The daemon: the rates of a user';

COMMENT ON TABLE roster.cost_rates IS 'History of the cost rates of each user; pay data. Empty unless rates.histories is true';
COMMENT ON COLUMN roster.cost_rates.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.cost_rates.id IS 'Harvest''s id of the rate, unique within the account';
COMMENT ON COLUMN roster.cost_rates.user_id IS 'The user: roster.users.id';
COMMENT ON COLUMN roster.cost_rates.amount IS 'Amount per hour, in the account''s currency; pay data. `rosterd forget` sets amount and dates to null';
COMMENT ON COLUMN roster.cost_rates.start_date IS 'First day; null for the user''s first rate';
COMMENT ON COLUMN roster.cost_rates.end_date IS 'Last day; null for the current rate';
COMMENT ON COLUMN roster.cost_rates.created_at IS 'When the rate was created in Harvest';
COMMENT ON COLUMN roster.cost_rates.updated_at IS 'Harvest''s time of the last change, in whole seconds';
COMMENT ON COLUMN roster.cost_rates.raw IS 'JSON object of the last write as Harvest sent it, including unknown fields; never merged; pay data';
COMMENT ON COLUMN roster.cost_rates.version IS '1 when first seen, incremented with each event';
COMMENT ON COLUMN roster.cost_rates.content_hash IS 'Hash of raw, so that a read can detect changes without reading the row';
COMMENT ON COLUMN roster.cost_rates.synced_at IS 'When this row was last written';
COMMENT ON COLUMN roster.cost_rates.deleted_at IS 'When a 404 confirmed the deletion of the rate or its user; null while Harvest has the rate';

-- A record's version only increases, and the mirror alone knows the last one. So an administrator who works
-- manually cannot delete a row or lower its version. `rosterd forget account` sets roster.forgetting.

CREATE FUNCTION roster.keep_row() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        RAISE EXCEPTION 'rosterd keeps the rows of %.%, because the versions of its records continue', TG_TABLE_SCHEMA, TG_TABLE_NAME
            USING ERRCODE = '55000', HINT = 'To erase a user or an account, run `rosterd forget`.';
    ELSIF TG_OP = 'UPDATE' THEN
        NEW.version := OLD.version;
        RETURN NEW;
    ELSIF current_setting('roster.forgetting', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE WARNING 'rosterd keeps this row of %.%, because the versions of its records continue', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING HINT = 'To erase a user or an account, run `rosterd forget`.';
    RETURN NULL;
END $$;
COMMENT ON FUNCTION roster.keep_row IS 'Keeps rows of the mirror and their versions if a row is deleted or its version lowered manually';
REVOKE ALL ON FUNCTION roster.keep_row FROM PUBLIC;

CREATE TRIGGER keep_row BEFORE DELETE ON roster.users FOR EACH ROW EXECUTE FUNCTION roster.keep_row();
CREATE TRIGGER keep_row BEFORE DELETE ON roster.user_assignments FOR EACH ROW EXECUTE FUNCTION roster.keep_row();
CREATE TRIGGER keep_row BEFORE DELETE ON roster.billable_rates FOR EACH ROW EXECUTE FUNCTION roster.keep_row();
CREATE TRIGGER keep_row BEFORE DELETE ON roster.cost_rates FOR EACH ROW EXECUTE FUNCTION roster.keep_row();
CREATE TRIGGER keep_rows BEFORE TRUNCATE ON roster.users FOR EACH STATEMENT EXECUTE FUNCTION roster.keep_row();
CREATE TRIGGER keep_rows BEFORE TRUNCATE ON roster.user_assignments FOR EACH STATEMENT EXECUTE FUNCTION roster.keep_row();
CREATE TRIGGER keep_rows BEFORE TRUNCATE ON roster.billable_rates FOR EACH STATEMENT EXECUTE FUNCTION roster.keep_row();
CREATE TRIGGER keep_rows BEFORE TRUNCATE ON roster.cost_rates FOR EACH STATEMENT EXECUTE FUNCTION roster.keep_row();
CREATE TRIGGER keep_version BEFORE UPDATE OF version ON roster.users FOR EACH ROW WHEN (NEW.version < OLD.version)
    EXECUTE FUNCTION roster.keep_row();
CREATE TRIGGER keep_version BEFORE UPDATE OF version ON roster.user_assignments FOR EACH ROW WHEN (NEW.version < OLD.version)
    EXECUTE FUNCTION roster.keep_row();
CREATE TRIGGER keep_version BEFORE UPDATE OF version ON roster.billable_rates FOR EACH ROW WHEN (NEW.version < OLD.version)
    EXECUTE FUNCTION roster.keep_row();
CREATE TRIGGER keep_version BEFORE UPDATE OF version ON roster.cost_rates FOR EACH ROW WHEN (NEW.version < OLD.version)
    EXECUTE FUNCTION roster.keep_row();
