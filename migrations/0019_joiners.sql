-- People who were there at the first read are no joiners: rosterd cannot know who joined and left before it. And the budgets of
-- tokens get names that tell nothing of the token, also to those who may read the permits.

ALTER TABLE roster.accounts ADD COLUMN first_full_at timestamptz;
COMMENT ON COLUMN roster.accounts.first_full_at IS 'End of the first full read: from then on joiners and leavers are known';
UPDATE roster.accounts SET first_full_at = history_since WHERE last_full_at IS NOT NULL;

COMMENT ON COLUMN roster.accounts.epoch IS 'Grows with each change of the writer, from a time on; a writer with an older one cannot commit';

CREATE TABLE roster.budget_salt (
    one  bool PRIMARY KEY DEFAULT true CHECK (one),
    salt uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO roster.budget_salt DEFAULT VALUES;
COMMENT ON TABLE roster.budget_salt IS 'One row: what the names of the tokens'' budgets in roster.permits are salted with';
COMMENT ON COLUMN roster.budget_salt.one IS 'Always true: there is one row';
COMMENT ON COLUMN roster.budget_salt.salt IS 'Random; with it a guess of a token could be tested, so readers do not get it';

CREATE OR REPLACE VIEW directory.accounts AS
SELECT account_id, name, last_success_at, last_full_at, history_since, first_full_at FROM roster.accounts;
COMMENT ON COLUMN directory.accounts.first_full_at IS 'End of the first full read: from then on joiners and leavers are known; null before';

CREATE VIEW directory.all_joiners AS
SELECT past.account_id, past.id AS user_id,
       concat_ws(' ', nullif(past.first_name, ''), nullif(past.last_name, '')) AS user_name, past.email,
       -- By the day, because the clocks of Harvest and of the database differ: a person who was created on an earlier day
       -- than the first read was there, even if the token did not show them at first.
       CASE WHEN past.version = 1 AND (account.first_full_at IS NULL OR past.valid_from <= account.first_full_at
                                       OR past.created_at < date_trunc('day', account.first_full_at, 'UTC'))
            THEN 'initial' ELSE past.type END AS how,
       -- Whoever comes back after a deletion has the old created_at.
       (CASE WHEN past.version = 1 THEN coalesce(past.created_at, past.occurred_at) ELSE past.occurred_at END
        AT TIME ZONE 'UTC')::date AS day
  FROM roster.user_history AS past
  LEFT JOIN roster.accounts AS account ON account.account_id = past.account_id
 WHERE past.type IN ('user.created', 'user.reactivated') AND past.is_active;
COMMENT ON VIEW directory.all_joiners IS 'directory.joiners, and with how = ''initial'' the active people of the first read, by the day on which Harvest made them';
CREATE OR REPLACE VIEW directory.joiners AS
SELECT account_id, user_id, user_name, email, how, day FROM directory.all_joiners WHERE how <> 'initial';
COMMENT ON VIEW directory.joiners IS 'People who joined or came back since the first read, by the day of Harvest''s clock (UTC)';
COMMENT ON VIEW directory.leavers IS 'People who left since the first read: archived, by the day of Harvest''s clock (UTC), or deleted while active';
COMMENT ON VIEW directory.joiners_and_leavers_by_day IS 'Number of people who joined and left on each day since the first read';

COMMENT ON COLUMN directory.all_joiners.account_id IS 'Harvest account';
COMMENT ON COLUMN directory.all_joiners.user_id IS 'Harvest''s id of the person';
COMMENT ON COLUMN directory.all_joiners.user_name IS 'First and last name';
COMMENT ON COLUMN directory.all_joiners.email IS 'E-mail address, as Harvest spells it';
COMMENT ON COLUMN directory.all_joiners.how IS 'user.created, user.reactivated, or initial: active when the account was first read';
COMMENT ON COLUMN directory.all_joiners.day IS 'The day, in UTC';
