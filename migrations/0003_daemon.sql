-- Internal state of the daemon: accounts and their leases, the shared budget of requests, watermarks, sync cycles, absent
-- and quarantined records, requests of other processes, and OAuth2 tokens.

CREATE TABLE roster.accounts (
    account_id      bigint PRIMARY KEY,
    name            text,
    base_uri        text,
    token_user_id   bigint,
    access_roles    text[],
    holder          uuid,
    epoch           bigint NOT NULL DEFAULT 0,
    free_at         timestamptz,
    last_full_at    timestamptz,
    last_success_at timestamptz,
    last_error      text,
    CONSTRAINT accounts_times CHECK (
            last_full_at > '-infinity' AND last_full_at < '10001-01-01'
        AND last_success_at > '-infinity' AND last_success_at < '10001-01-01'
        AND free_at > '-infinity' AND free_at < '10001-01-01')
);

COMMENT ON TABLE roster.accounts IS 'Mirrored Harvest accounts, with the lease of each';
COMMENT ON COLUMN roster.accounts.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.accounts.name IS 'Name of the company';
COMMENT ON COLUMN roster.accounts.base_uri IS 'Web address of the company at the last full read. If it or the name changes and most users are absent, cycles fail';
COMMENT ON COLUMN roster.accounts.token_user_id IS 'The token''s owner: roster.users.id';
COMMENT ON COLUMN roster.accounts.access_roles IS 'Access roles of the token''s owner at the last check';
COMMENT ON COLUMN roster.accounts.holder IS 'The process that holds the lease of this account: roster.replicas.id; null if no process does';
COMMENT ON COLUMN roster.accounts.epoch IS 'Fencing number, increased with each takeover and initially derived from the time; a process with an older epoch cannot commit';
COMMENT ON COLUMN roster.accounts.free_at IS 'While other processes hold leases, no process takes the first lease of a new account before this time, because they may not know the account; null until their leases were read';
COMMENT ON COLUMN roster.accounts.last_full_at IS 'End of the last full read';
COMMENT ON COLUMN roster.accounts.last_success_at IS 'End of the last successful cycle that wrote something; freshness is in roster.watermarks';
COMMENT ON COLUMN roster.accounts.last_error IS 'Error of the last cycle; null if it succeeded';

CREATE TABLE roster.replicas (
    id          uuid        PRIMARY KEY,
    name        text        NOT NULL,
    started_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    timeline_id int
);

COMMENT ON TABLE roster.replicas IS 'Running processes, one row each';
COMMENT ON COLUMN roster.replicas.id IS 'Random id, new for each process';
COMMENT ON COLUMN roster.replicas.name IS 'Host and process id, for display';
COMMENT ON COLUMN roster.replicas.started_at IS 'When the process registered, by the database''s clock';
COMMENT ON COLUMN roster.replicas.expires_at IS 'If no heartbeat arrives before this time, the process counts as dead; by the database''s clock';
COMMENT ON COLUMN roster.replicas.timeline_id IS 'The last timeline of the database that the process found to have all events that it knows; null before the first failover';

CREATE TABLE roster.rate_budgets (
    name         text        PRIMARY KEY,
    paused_until timestamptz NOT NULL
);

COMMENT ON TABLE roster.rate_budgets IS 'Budgets of requests for which Harvest has requested a back-off';
COMMENT ON COLUMN roster.rate_budgets.name IS 'Name of the budget: one for all accounts, or one for each token';
COMMENT ON COLUMN roster.rate_budgets.paused_until IS 'No process sends a request before this time, by the database''s clock';

-- Unlogged, because each poll writes it and its rows count for less than a minute. After a crash of the server, and on a
-- promoted standby, the table is empty. Then the marker row is missing too, and no process sends requests for as long as
-- a lost row could count.
CREATE UNLOGGED TABLE roster.rate_permits (
    id         uuid        PRIMARY KEY,
    budget     text        NOT NULL,
    free_at    timestamptz NOT NULL,
    background boolean     NOT NULL
);

CREATE INDEX rate_permits_budget ON roster.rate_permits (budget);
-- The marker.
INSERT INTO roster.rate_permits VALUES ('00000000-0000-0000-0000-000000000000', '', now(), false);

COMMENT ON TABLE roster.rate_permits IS 'Permits in use: one row for each request to Harvest that counts in the current window, and a marker row that is missing after a crash of the server';
COMMENT ON COLUMN roster.rate_permits.id IS 'Random id; zero for the marker';
COMMENT ON COLUMN roster.rate_permits.budget IS 'Name of the budget: one for all accounts, or one for each token; empty for the marker';
COMMENT ON COLUMN roster.rate_permits.free_at IS 'When the permit becomes free, by the database''s clock: one window after the response; before the response, so late that the request cannot count any more. Marker: no request before this time';
COMMENT ON COLUMN roster.rate_permits.background IS 'True for a long read, which leaves permits to polls';
COMMENT ON INDEX roster.rate_permits_budget IS 'The daemon: the permits of a budget in use, whenever it takes more';

CREATE TABLE roster.budget_salt (
    one  bool PRIMARY KEY DEFAULT true CHECK (one),
    salt uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO roster.budget_salt DEFAULT VALUES;

COMMENT ON TABLE roster.budget_salt IS 'One row: the salt for the names of budgets in roster.rate_permits and roster.rate_budgets';
COMMENT ON COLUMN roster.budget_salt.one IS 'Always true, so that there is one row';
COMMENT ON COLUMN roster.budget_salt.salt IS 'Random salt. A reader who has it could test guesses of a token, so readers must not see it';

CREATE TABLE roster.watermarks (
    account_id           bigint      NOT NULL,
    resource             text        NOT NULL CHECK (resource IN ('users', 'user_assignments')),
    watermark            timestamptz,
    clock_offset_ms      bigint,
    last_attempt_at      timestamptz,
    last_success_at      timestamptz,
    last_full_at         timestamptz,
    next_full_at         timestamptz,
    idle_polls           bigint      NOT NULL DEFAULT 0,
    unexplained_total    bigint,
    unexplained_expected bigint,
    PRIMARY KEY (account_id, resource),
    CONSTRAINT watermarks_times CHECK (
            watermark > '-infinity' AND watermark < '10001-01-01'
        AND last_attempt_at > '-infinity' AND last_attempt_at < '10001-01-01'
        AND last_success_at > '-infinity' AND last_success_at < '10001-01-01'
        AND last_full_at > '-infinity' AND last_full_at < '10001-01-01'
        AND next_full_at > '-infinity' AND next_full_at < '10001-01-01')
);

COMMENT ON TABLE roster.watermarks IS 'How far each list of each account has been read, one row for each list';
COMMENT ON COLUMN roster.watermarks.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.watermarks.resource IS 'users or user_assignments';
COMMENT ON COLUMN roster.watermarks.watermark IS 'Time at the start of the last complete read: the earlier of Harvest''s clock and rosterd''s; null before the first';
COMMENT ON COLUMN roster.watermarks.clock_offset_ms IS 'Harvest''s clock minus rosterd''s at that read, in milliseconds';
COMMENT ON COLUMN roster.watermarks.last_attempt_at IS 'Start of the last recorded read';
COMMENT ON COLUMN roster.watermarks.last_success_at IS 'End of the last complete read; written at most once a minute while nothing changes';
COMMENT ON COLUMN roster.watermarks.last_full_at IS 'When the last full read ended, including its deletions';
COMMENT ON COLUMN roster.watermarks.next_full_at IS 'When the next full read is due';
COMMENT ON COLUMN roster.watermarks.idle_polls IS 'Number of complete reads without a change, as last written';
COMMENT ON COLUMN roster.watermarks.unexplained_total IS 'Harvest''s total that differed from the mirror after the last full read; while it stays the same, it starts no other full read. Null if totals match';
COMMENT ON COLUMN roster.watermarks.unexplained_expected IS 'Total expected from the mirror at that time';

CREATE TABLE roster.cycles (
    id                  uuid        PRIMARY KEY,
    account_id          bigint      NOT NULL,
    mode                text        NOT NULL CHECK (mode IN ('incremental', 'full')),
    started_at          timestamptz NOT NULL,
    finished_at         timestamptz,
    outcome             text        CHECK (outcome IN ('ok', 'failed', 'held', 'abandoned')),
    requests            bigint      NOT NULL DEFAULT 0,
    users_seen          bigint      NOT NULL DEFAULT 0,
    users_changed       bigint      NOT NULL DEFAULT 0,
    assignments_seen    bigint      NOT NULL DEFAULT 0,
    assignments_changed bigint      NOT NULL DEFAULT 0,
    events              bigint      NOT NULL DEFAULT 0,
    error               text
);
CREATE INDEX cycles_account ON roster.cycles (account_id, started_at);
COMMENT ON INDEX roster.cycles_account IS 'The daemon: the last cycles of an account';

COMMENT ON TABLE roster.cycles IS 'Sync cycles that changed something or failed; cycles without a change are counted in roster.watermarks';
COMMENT ON COLUMN roster.cycles.id IS 'Id of the cycle, also in its events and log lines';
COMMENT ON COLUMN roster.cycles.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.cycles.mode IS 'incremental (what changed since the watermark) or full (everything)';
COMMENT ON COLUMN roster.cycles.started_at IS 'Start of the cycle';
COMMENT ON COLUMN roster.cycles.finished_at IS 'End of the cycle; null while it runs';
COMMENT ON COLUMN roster.cycles.outcome IS 'ok, failed, held (deletions are held for review) or abandoned (ended early); null while it runs';
COMMENT ON COLUMN roster.cycles.requests IS 'Number of requests sent to Harvest';
COMMENT ON COLUMN roster.cycles.users_seen IS 'Number of users read';
COMMENT ON COLUMN roster.cycles.users_changed IS 'Number of users with an event';
COMMENT ON COLUMN roster.cycles.assignments_seen IS 'Number of assignments read';
COMMENT ON COLUMN roster.cycles.assignments_changed IS 'Number of assignments with an event';
COMMENT ON COLUMN roster.cycles.events IS 'Number of events written to the outbox';
COMMENT ON COLUMN roster.cycles.error IS 'Error, if the cycle failed';

CREATE TABLE roster.rejected_records (
    account_id          bigint      NOT NULL,
    resource            text        NOT NULL CHECK (resource IN ('users', 'user_assignments', 'billable_rates', 'cost_rates')),
    fingerprint         text        NOT NULL,
    record_id           bigint,
    user_id             bigint,
    raw                 bytea       NOT NULL,
    raw_size            bigint      NOT NULL,
    error               text        NOT NULL,
    refused_by_database bool        NOT NULL DEFAULT false,
    rosterd_version     text        NOT NULL,
    first_seen_at       timestamptz NOT NULL,
    last_seen_at        timestamptz NOT NULL,
    PRIMARY KEY (account_id, resource, fingerprint)
);
-- PostgreSQL keeps samples of column values as statistics, also after the rows are gone. No query selects by raw.
ALTER TABLE roster.rejected_records ALTER COLUMN raw SET STATISTICS 0;

COMMENT ON TABLE roster.rejected_records IS 'Quarantined records: rosterd could not read them, or PostgreSQL refused them. The other records of the page were stored';
COMMENT ON COLUMN roster.rejected_records.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.rejected_records.resource IS 'users, user_assignments, billable_rates or cost_rates';
COMMENT ON COLUMN roster.rejected_records.fingerprint IS 'The record''s id, or a hash of its text if the id cannot be read';
COMMENT ON COLUMN roster.rejected_records.record_id IS 'Harvest''s id of the record; null if it cannot be read';
COMMENT ON COLUMN roster.rejected_records.user_id IS 'Harvest''s id of the user that the record belongs to; null if it cannot be read. `rosterd forget user` erases records without an id for every user of the account';
COMMENT ON COLUMN roster.rejected_records.raw IS 'Text of the record as received; truncated to 64 KiB, unless PostgreSQL refused the record';
COMMENT ON COLUMN roster.rejected_records.raw_size IS 'Full size of the text in bytes';
COMMENT ON COLUMN roster.rejected_records.error IS 'Why the record was rejected; names fields, never values';
COMMENT ON COLUMN roster.rejected_records.refused_by_database IS 'Whether PostgreSQL refused the record and accepted others; rosterd retries such a record at every poll';
COMMENT ON COLUMN roster.rejected_records.rosterd_version IS 'Version of rosterd that rejected the record';
COMMENT ON COLUMN roster.rejected_records.first_seen_at IS 'When the record was first rejected';
COMMENT ON COLUMN roster.rejected_records.last_seen_at IS 'When the record was last rejected; updated at most once an hour';

CREATE TABLE roster.held_deletions (
    account_id bigint      NOT NULL,
    resource   text        NOT NULL CHECK (resource IN ('users', 'user_assignments', 'billable_rates', 'cost_rates')),
    record_id  bigint      NOT NULL,
    found_at   timestamptz NOT NULL,
    reason     text        NOT NULL CHECK (reason IN ('guard', 'not_administrator', 'empty_list')),
    decision   text        CHECK (decision IN ('accepted', 'rejected')),
    decided_at timestamptz,
    decided_by text,
    PRIMARY KEY (account_id, resource, record_id),
    CHECK ((decision IS NULL) = (decided_at IS NULL))
);

COMMENT ON TABLE roster.held_deletions IS 'Deletions held for review: records that are absent from Harvest''s lists. An administrator decides, or a later read shows them again';
COMMENT ON COLUMN roster.held_deletions.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.held_deletions.resource IS 'users, user_assignments, billable_rates or cost_rates';
COMMENT ON COLUMN roster.held_deletions.record_id IS 'Harvest''s id of the record';
COMMENT ON COLUMN roster.held_deletions.found_at IS 'When the deletion was first held';
COMMENT ON COLUMN roster.held_deletions.reason IS 'guard (too many at once), not_administrator (the token may not see all users) or empty_list (Harvest''s list was empty)';
COMMENT ON COLUMN roster.held_deletions.decision IS 'accepted (deleted once Harvest confirms it), rejected (the row is kept) or null (no decision yet)';
COMMENT ON COLUMN roster.held_deletions.decided_at IS 'When the decision was made';
COMMENT ON COLUMN roster.held_deletions.decided_by IS 'Login and host of the administrator who decided, from `rosterd deletions`';

CREATE TABLE roster.missed_records (
    account_id bigint      NOT NULL,
    resource   text        NOT NULL CHECK (resource IN ('users', 'user_assignments', 'billable_rates', 'cost_rates')),
    record_id  bigint      NOT NULL,
    missed_at  timestamptz NOT NULL,
    PRIMARY KEY (account_id, resource, record_id)
);

COMMENT ON TABLE roster.missed_records IS 'Records that rosterd will request by id: recently created ones after a first 404, a poll interval later; rates that are absent from their user''s list, once all due lists have been read';
COMMENT ON COLUMN roster.missed_records.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.missed_records.resource IS 'users, user_assignments, billable_rates or cost_rates';
COMMENT ON COLUMN roster.missed_records.record_id IS 'Harvest''s id of the record';
COMMENT ON COLUMN roster.missed_records.missed_at IS 'When Harvest first answered 404, or the rate was first absent from its user''s list';

CREATE TABLE roster.rate_reads (
    account_id bigint      NOT NULL,
    user_id    bigint      NOT NULL,
    read_at    timestamptz NOT NULL,
    PRIMARY KEY (account_id, user_id)
);

COMMENT ON TABLE roster.rate_reads IS 'When the rate histories of each user were last read. They are due again after a change of the user or a full read';
COMMENT ON COLUMN roster.rate_reads.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.rate_reads.user_id IS 'The user: roster.users.id';
COMMENT ON COLUMN roster.rate_reads.read_at IS 'Time before the request was sent, by the database''s clock';

CREATE TABLE roster.requests (
    id         bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    account_id bigint      NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('sync', 'full', 'user')),
    user_id    bigint      CHECK ((kind = 'user') = (user_id IS NOT NULL)),
    asked_at   timestamptz NOT NULL DEFAULT now(),
    taken_at   timestamptz,
    done_at    timestamptz,
    outcome    text        CHECK (outcome IN ('ok', 'no_such_record', 'refused', 'unavailable')),
    answer     text,
    CHECK ((done_at IS NULL) = (outcome IS NULL))
);
CREATE INDEX requests_open ON roster.requests (account_id, id) WHERE done_at IS NULL;
COMMENT ON INDEX roster.requests_open IS 'The daemon: the open requests of an account';

COMMENT ON TABLE roster.requests IS 'Requests to the process that holds the lease of an account. NOTIFY roster_sync announces them; polls find them too';
COMMENT ON COLUMN roster.requests.id IS 'Id of the request';
COMMENT ON COLUMN roster.requests.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.requests.kind IS 'sync (what is due), full (everything) or user (one user and their assignments)';
COMMENT ON COLUMN roster.requests.user_id IS 'The user, if kind is user';
COMMENT ON COLUMN roster.requests.asked_at IS 'When the request was made';
COMMENT ON COLUMN roster.requests.taken_at IS 'When the process began to work on it';
COMMENT ON COLUMN roster.requests.done_at IS 'When the request was finished; null before';
COMMENT ON COLUMN roster.requests.outcome IS 'ok, no_such_record, refused (the token or the account) or unavailable (Harvest or the database); null until finished';
COMMENT ON COLUMN roster.requests.answer IS 'Result for the requester, one sentence; names users by id';

-- OAuth2 tokens expire, and each renewal may revoke the previous ones. So the newest tokens are stored for restarts and
-- for all replicas. They are encrypted; the key is not in the database.

CREATE TABLE roster.credentials (
    account_id    bigint      PRIMARY KEY,
    ciphertext    bytea,
    nonce         bytea       CHECK ((nonce IS NULL) = (ciphertext IS NULL)),
    expires_at    timestamptz,
    seed_hash     bytea,
    updated_at    timestamptz NOT NULL,
    claimed_by    uuid,
    claimed_until timestamptz CHECK ((claimed_until IS NULL) = (claimed_by IS NULL))
);

COMMENT ON TABLE roster.credentials IS 'The newest OAuth2 tokens of each account, encrypted with a key derived from the application''s client secret';
COMMENT ON COLUMN roster.credentials.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.credentials.ciphertext IS 'The tokens, AES-256-GCM; null while the first tokens are being requested';
COMMENT ON COLUMN roster.credentials.nonce IS 'Nonce of the ciphertext';
COMMENT ON COLUMN roster.credentials.expires_at IS 'When the access token expires; null if Harvest did not say. rosterd renews it before';
COMMENT ON COLUMN roster.credentials.seed_hash IS 'Keyed hash of the refresh token in the settings when these tokens were stored; null if there was none. If Harvest refuses the stored tokens, rosterd tries a refresh token in the settings that has another hash';
COMMENT ON COLUMN roster.credentials.updated_at IS 'When the tokens were stored';
COMMENT ON COLUMN roster.credentials.claimed_by IS 'The process that is requesting new tokens, while the others wait; null if none is';
COMMENT ON COLUMN roster.credentials.claimed_until IS 'When the claim expires';
