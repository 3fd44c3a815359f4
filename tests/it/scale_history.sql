-- The history of scale.sql's companies, the state of the daemon, and writes. Every user and every fifth assignment is in its second version.
UPDATE roster.users SET version = 2, event_type = CASE WHEN deleted_at IS NOT NULL THEN 'user.deleted' WHEN is_active THEN
       'user.updated' ELSE 'user.deactivated' END, valid_from = updated_at, occurred_at = updated_at;
INSERT INTO roster.user_history (account_id, id, version, event_type, valid_from, valid_to, occurred_at, first_name, last_name,
                                 email, is_active, access_roles, created_at)
SELECT account_id, id, 1, 'user.created', '2025-12-01', valid_from, created_at, first_name, last_name, email, true,
       CASE WHEN id % 40 = 1 THEN '{administrator}' ELSE access_roles END, created_at
  FROM roster.users;
INSERT INTO roster.user_assignment_history (account_id, id, version, event_type, valid_from, valid_to, occurred_at, user_id,
                                            project_id, is_active, created_at)
SELECT account_id, id, 1, 'user_assignment.created', '2025-12-01', valid_from, created_at, user_id, project_id, is_active,
       created_at
  FROM roster.user_assignments WHERE id % 5 = 0;
UPDATE roster.user_assignments SET version = 2, event_type = 'user_assignment.updated' WHERE id % 5 = 0;
INSERT INTO roster.billable_rates (account_id, id, user_id, raw, version, content_hash, synced_at)
SELECT account_id, id, id, '{}', 1, 0, now() FROM roster.users;
INSERT INTO roster.cost_rates (account_id, id, user_id, raw, version, content_hash, synced_at)
SELECT account_id, id, id, '{}', 1, 0, now() FROM roster.users;
INSERT INTO roster.cycles (id, account_id, mode, started_at, finished_at, outcome)
SELECT gen_random_uuid(), 123456 + n % 5, 'incremental', now() - n * interval '1 minute', now() - n * interval '1 minute', 'ok'
  FROM generate_series(1, 10000) AS n;
INSERT INTO roster.requests (account_id, kind, done_at, outcome) SELECT 123456 + n % 5, 'sync', now(), 'ok' FROM generate_series(1, 10000) AS n;
INSERT INTO roster.rate_permits (id, budget, free_at, background)
SELECT gen_random_uuid(), 'budget ' || n % 1000, now(), false FROM generate_series(1, 4000) AS n;
INSERT INTO roster.rate_budgets (name, paused_until) SELECT 'budget ' || n, now() FROM generate_series(1, 1000) AS n;
ANALYZE;
-- The writes of three months, 20 of them open.
INSERT INTO roster.writes (account_id, kind, user_id, wanted, fields, actor, asked_at, done_at, outcome)
SELECT 123456 + w % 5, CASE WHEN w % 40 = 0 THEN 'user_deactivate' ELSE 'user_update' END, 1000 + w % 4000,
       CASE WHEN w % 1000 = 0 THEN '{}'::jsonb END, '{}', 'sql:hr', at, CASE WHEN w % 1000 > 0 THEN at END,
       CASE WHEN w % 1000 > 0 THEN 'done' END
  FROM generate_series(1, 20000) AS w, LATERAL (SELECT now() - w * interval '6 minutes' AS at) AS time;
INSERT INTO roster.scim_links (account_id, resource, record_id, external_id, user_name, removed_at)
SELECT account_id, 'User', id, 'ext-' || id, 'user-' || id, CASE WHEN id % 500 = 0 THEN now() END FROM roster.users;
