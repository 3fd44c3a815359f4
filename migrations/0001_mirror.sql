-- The mirror: what Harvest says of people, their project assignments and the projects' names.
-- No foreign keys: Harvest may show an assignment before its user. No enums: Harvest's value sets are open.

CREATE SCHEMA IF NOT EXISTS roster;
COMMENT ON SCHEMA roster IS 'rosterd: mirror of Harvest accounts, outbox of changes, and the daemon''s own state';

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
    PRIMARY KEY (account_id, id),
    CHECK (deleted_at IS NULL OR NOT is_active)
);

CREATE INDEX users_email ON roster.users (account_id, lower(email));

COMMENT ON TABLE roster.users IS 'People of each Harvest account, one row each, deleted ones included (deleted_at)';
COMMENT ON COLUMN roster.users.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.users.id IS 'Harvest''s id of the user, unique within the account';
COMMENT ON COLUMN roster.users.first_name IS 'First name';
COMMENT ON COLUMN roster.users.last_name IS 'Last name';
COMMENT ON COLUMN roster.users.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN roster.users.telephone IS 'Telephone number; Harvest sends an empty text where there is none';
COMMENT ON COLUMN roster.users.timezone IS 'Time zone by its Rails name, such as Eastern Time (US & Canada); not an IANA name';
COMMENT ON COLUMN roster.users.weekly_capacity IS 'Working time of a week, in seconds';
COMMENT ON COLUMN roster.users.has_access_to_all_future_projects IS 'Whether new projects get an assignment for this user by themselves';
COMMENT ON COLUMN roster.users.is_contractor IS 'Whether the user is a contractor';
COMMENT ON COLUMN roster.users.is_active IS 'Whether the user is active (not archived); false for a deleted user';
COMMENT ON COLUMN roster.users.roles IS 'Names of the business roles the user has; a set';
COMMENT ON COLUMN roster.users.access_roles IS 'Access roles, such as administrator, manager, member; an open set';
COMMENT ON COLUMN roster.users.permissions_claims IS 'Permission claims, such as timers:read:own; an open set, undocumented by Harvest';
COMMENT ON COLUMN roster.users.is_admin IS 'Administrator: as sent, or else whether access_roles holds administrator';
COMMENT ON COLUMN roster.users.is_project_manager IS 'Old flag, null where Harvest no longer sends it';
COMMENT ON COLUMN roster.users.can_see_rates IS 'Old flag, null where Harvest no longer sends it';
COMMENT ON COLUMN roster.users.can_create_projects IS 'Old flag, null where Harvest no longer sends it';
COMMENT ON COLUMN roster.users.can_create_invoices IS 'Old flag, null where Harvest no longer sends it';
COMMENT ON COLUMN roster.users.calendar_integration_enabled IS 'Whether a calendar is connected; undocumented by Harvest';
COMMENT ON COLUMN roster.users.calendar_integration_source IS 'Which calendar is connected, such as google; undocumented by Harvest';
COMMENT ON COLUMN roster.users.employee_id IS 'Employee number, where the account uses it; undocumented by Harvest';
COMMENT ON COLUMN roster.users.default_hourly_rate IS 'Billable rate an hour, in the account''s currency; pay';
COMMENT ON COLUMN roster.users.cost_rate IS 'Cost an hour, in the account''s currency; pay';
COMMENT ON COLUMN roster.users.avatar_url IS 'Address of the user''s picture; makes no event';
COMMENT ON COLUMN roster.users.created_at IS 'When Harvest made the user';
COMMENT ON COLUMN roster.users.updated_at IS 'Harvest''s stamp of the last change, in whole seconds; not every change moves it';
COMMENT ON COLUMN roster.users.raw IS 'The object of the last write as received, unknown fields included, never merged';
COMMENT ON COLUMN roster.users.version IS '1 when first seen, one more with each event';
COMMENT ON COLUMN roster.users.content_hash IS 'Hash of raw, by which a poll sees that nothing changed without reading the row';
COMMENT ON COLUMN roster.users.synced_at IS 'When this row was last written';
COMMENT ON COLUMN roster.users.deleted_at IS 'When the deletion was confirmed; null while Harvest has the user';

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
    PRIMARY KEY (account_id, id),
    CHECK (deleted_at IS NULL OR NOT is_active)
);

CREATE INDEX user_assignments_user ON roster.user_assignments (account_id, user_id);
CREATE INDEX user_assignments_project ON roster.user_assignments (account_id, project_id);

COMMENT ON TABLE roster.user_assignments IS 'Who is on which project: Harvest''s user assignments, one row each, deleted ones included (deleted_at)';
COMMENT ON COLUMN roster.user_assignments.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.user_assignments.id IS 'Harvest''s id of the assignment, unique within the account';
COMMENT ON COLUMN roster.user_assignments.user_id IS 'The person: roster.users.id';
COMMENT ON COLUMN roster.user_assignments.project_id IS 'The project: roster.projects.id';
COMMENT ON COLUMN roster.user_assignments.is_active IS 'Whether the assignment is active (not archived); false for a deleted one';
COMMENT ON COLUMN roster.user_assignments.is_project_manager IS 'Whether the person manages this project';
COMMENT ON COLUMN roster.user_assignments.use_default_rates IS 'Whether the person''s own rates count for this project';
COMMENT ON COLUMN roster.user_assignments.hourly_rate IS 'Billable rate an hour on this project; pay';
COMMENT ON COLUMN roster.user_assignments.budget IS 'Budget of the person on this project; pay';
COMMENT ON COLUMN roster.user_assignments.created_at IS 'When Harvest made the assignment';
COMMENT ON COLUMN roster.user_assignments.updated_at IS 'Harvest''s stamp of the last change, in whole seconds; not every change moves it';
COMMENT ON COLUMN roster.user_assignments.raw IS 'The object of the last write as received, unknown fields included, never merged';
COMMENT ON COLUMN roster.user_assignments.version IS '1 when first seen, one more with each event';
COMMENT ON COLUMN roster.user_assignments.content_hash IS 'Hash of raw without the embedded names, by which a poll sees that nothing changed without reading the row';
COMMENT ON COLUMN roster.user_assignments.synced_at IS 'When this row was last written';
COMMENT ON COLUMN roster.user_assignments.deleted_at IS 'When the deletion was confirmed; null while Harvest has the assignment';

CREATE TABLE roster.projects (
    account_id bigint      NOT NULL,
    id         bigint      NOT NULL,
    name       text,
    code       text,
    seen_at    timestamptz NOT NULL,
    PRIMARY KEY (account_id, id)
);

COMMENT ON TABLE roster.projects IS 'Names of projects, learned from the references inside assignments';
COMMENT ON COLUMN roster.projects.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.projects.id IS 'Harvest''s id of the project';
COMMENT ON COLUMN roster.projects.name IS 'Name of the project';
COMMENT ON COLUMN roster.projects.code IS 'Code of the project; null or empty where it has none';
COMMENT ON COLUMN roster.projects.seen_at IS 'When this name or code was first seen';
