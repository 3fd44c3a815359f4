-- Which company an account shows: another one in its place must not be mirrored.

ALTER TABLE roster.accounts ADD COLUMN base_uri text;

COMMENT ON COLUMN roster.accounts.base_uri IS 'Web address of the company, as Harvest had it at the last full read: if it or the name changes together with most users, cycles fail';

-- Rates that are absent from their users' lists are confirmed, held and decided as users and assignments are.

COMMENT ON TABLE roster.held_deletions IS 'Records that Harvest''s lists did not show and that are not deleted without a decision: a person decides, or a later read shows them again';
COMMENT ON COLUMN roster.held_deletions.resource IS 'users, user_assignments, billable_rates or cost_rates';
COMMENT ON COLUMN roster.held_deletions.found_at IS 'When the deletion was first held';
COMMENT ON TABLE roster.missed_records IS 'Records that Harvest no longer shows and that are to be asked for by id: recently created ones after a first 404, a poll interval later; rates that their user''s list does not show, once all lists that are due have been read';
COMMENT ON COLUMN roster.missed_records.resource IS 'users, user_assignments, billable_rates or cost_rates';
COMMENT ON COLUMN roster.missed_records.missed_at IS 'When Harvest first answered 404, or the list of the rate''s user first did not show it';
COMMENT ON COLUMN roster.billable_rates.deleted_at IS 'When Harvest''s 404 confirmed that the rate, or its user, is gone; null while Harvest has it';
COMMENT ON COLUMN roster.cost_rates.deleted_at IS 'When Harvest''s 404 confirmed that the rate, or its user, is gone; null while Harvest has it';

-- With rates.histories, a row for each kind of rate too: everybody's lists have been read since last_success_at.
CREATE OR REPLACE VIEW directory.sync_status AS
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
