-- A record's versions only ever go up, also after its row was deleted or its version lowered by hand and the events are
-- no longer kept. The history refuses a version that is not above the last one. Rates have no history, so their last
-- versions are kept here.

CREATE TABLE roster.rate_versions (
    account_id bigint NOT NULL,
    billable   bool   NOT NULL,
    id         bigint NOT NULL,
    version    bigint NOT NULL,
    PRIMARY KEY (account_id, billable, id)
);
COMMENT ON TABLE roster.rate_versions IS 'The last version of every rate, which outlives its row and its events; holds no amounts';
COMMENT ON COLUMN roster.rate_versions.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.rate_versions.billable IS 'true: a rate of roster.billable_rates; false: one of roster.cost_rates';
COMMENT ON COLUMN roster.rate_versions.id IS 'Harvest''s id of the rate';
COMMENT ON COLUMN roster.rate_versions.version IS 'The version of the rate''s last event';

INSERT INTO roster.rate_versions
SELECT account_id, billable, id, max(version)
  FROM (SELECT account_id, true AS billable, id, version FROM roster.billable_rates
        UNION ALL SELECT account_id, false, id, version FROM roster.cost_rates
        UNION ALL SELECT account_id, aggregatetype = 'billable_rate', (payload ->> 'id')::bigint, version FROM roster.outbox
                   WHERE aggregatetype IN ('billable_rate', 'cost_rate')) AS known
 GROUP BY account_id, billable, id;

-- A current version that is not below the new one stays current, and so the INSERT fails by a unique index.
CREATE OR REPLACE FUNCTION roster.keep_history() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE roster.user_history AS past SET valid_to = told.recorded_at
      FROM told
     WHERE told.aggregatetype = 'user' AND told.version > 1 AND past.valid_to IS NULL AND past.version < told.version
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
       AND past.version < told.version
       AND past.account_id = told.account_id AND past.id = (told.payload ->> 'id')::bigint;
    INSERT INTO roster.user_assignment_history
    SELECT row.account_id, row.id, told.version, told.type, told.recorded_at, NULL, told.occurred_at, user_id, project_id,
           is_active, is_project_manager, use_default_rates, hourly_rate, budget, created_at
      FROM told
      JOIN roster.user_assignments AS row ON row.account_id = told.account_id AND row.id = (told.payload ->> 'id')::bigint
     WHERE told.aggregatetype = 'user_assignment';
    DELETE FROM roster.rate_versions AS last USING told
     WHERE told.aggregatetype IN ('billable_rate', 'cost_rate') AND told.version > 1 AND last.version < told.version
       AND last.account_id = told.account_id AND last.billable = (told.aggregatetype = 'billable_rate')
       AND last.id = (told.payload ->> 'id')::bigint;
    INSERT INTO roster.rate_versions
    SELECT told.account_id, told.aggregatetype = 'billable_rate', (told.payload ->> 'id')::bigint, told.version
      FROM told
     WHERE told.aggregatetype IN ('billable_rate', 'cost_rate');
    RETURN NULL;
END $$;
COMMENT ON FUNCTION roster.keep_history IS 'Keeps the version of each new event; refuses one that is not above the last';
