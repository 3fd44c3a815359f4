-- Five companies, the guide's first, as most have it: 20,000 people and 1,000,000 assignments in all.
-- The tables are as large as with real records, whose rows take 1,200 and 500 bytes.
ALTER TABLE roster.users SET (fillfactor = 10);
ALTER TABLE roster.user_assignments SET (fillfactor = 25);
INSERT INTO roster.accounts (account_id, name) SELECT 123456 + c, 'Company ' || c FROM generate_series(0, 4) AS c;
INSERT INTO roster.projects (account_id, id, name, seen_at)
SELECT 123456 + c, 3000 + p, 'Project ' || p, now() FROM generate_series(0, 4) AS c, generate_series(1, 800) AS p;
INSERT INTO roster.users (account_id, id, first_name, last_name, email, weekly_capacity, is_contractor, is_active, roles,
                          access_roles, created_at, updated_at, raw, version, content_hash, synced_at, deleted_at)
SELECT 123456 + c, 1000 + u, 'Ada', 'Marlow ' || u, 'Ada.' || u || '@example.com', 126000, u % 20 = 0, u % 10 > 0, '{}',
       CASE WHEN u % 50 = 1 THEN '{administrator}' ELSE '{member}' END::text[], '2026-01-01',
       '2026-04-01'::timestamptz - u * interval '50 minutes', '{}', 1, 0, now(), CASE WHEN u % 100 = 0 THEN now() END
  FROM generate_series(0, 4) AS c, generate_series(1, 4000) AS u;
INSERT INTO roster.user_assignments (account_id, id, user_id, project_id, is_active, created_at, updated_at, raw, version,
                                     content_hash, synced_at)
SELECT 123456 + c, 5000 + a, 1000 + a % 4000, 3000 + a % 801, a % 4 > 0, '2026-01-01',
       '2026-04-01'::timestamptz - a * interval '1 minute', '{}', 1, 0, now()
  FROM generate_series(0, 4) AS c, generate_series(1, 200000) AS a;
INSERT INTO roster.outbox (seq, id, aggregatetype, aggregateid, type, payload, account_id, version, occurred_at, recorded_at,
                           record_id)
SELECT row_number() OVER (), gen_random_uuid(), kind, account_id || '/' || id, kind || '.created',
       jsonb_build_object('account_id', account_id, 'id', id, 'changed', '{}'::jsonb, 'before', NULL, 'after', '{}'::jsonb),
       account_id, 1, updated_at, updated_at, id
  FROM (SELECT 'user' AS kind, account_id, id, updated_at FROM roster.users
        UNION ALL SELECT 'user_assignment', account_id, id, updated_at FROM roster.user_assignments) AS row;
UPDATE roster.outbox_head SET seq = (SELECT max(seq) FROM roster.outbox);
ANALYZE;
