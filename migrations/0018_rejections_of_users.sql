-- `rosterd forget user` erases a user's rejected records too, so each rejection says which user it belongs to. The JSON of a
-- rate names no user, and the text of an assignment may be cut off or unreadable.

ALTER TABLE roster.rejected_records ADD COLUMN user_id bigint;
COMMENT ON COLUMN roster.rejected_records.user_id IS 'Harvest''s id of the user whose record it is; null if that cannot be read, and then `rosterd forget user` erases it for every user of the account';
UPDATE roster.rejected_records SET user_id = record_id WHERE resource = 'users';
COMMENT ON COLUMN roster.rejected_records.resource IS 'users, user_assignments, billable_rates or cost_rates';
-- PostgreSQL keeps samples of column values as statistics, also after the rows are gone. No query selects by raw.
ALTER TABLE roster.rejected_records ALTER COLUMN raw SET STATISTICS 0;

-- Erasing a user or all pay data keeps the rates' rows, so that they say what the outbox says.
COMMENT ON COLUMN roster.billable_rates.amount IS 'Amount an hour, in the account''s currency; pay; null if `rosterd forget` erased it, and so are the dates then';
COMMENT ON COLUMN roster.cost_rates.amount IS 'Amount an hour, in the account''s currency; pay; null if `rosterd forget` erased it, and so are the dates then';
