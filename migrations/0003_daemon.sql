-- What the daemon keeps for itself: who holds which account, the shared budget of requests,
-- how far each list was read, what each cycle did, and the records it could not read.

CREATE TABLE roster.accounts (
    account_id      bigint PRIMARY KEY,
    name            text,
    user_id         bigint,
    access_roles    text[],
    holder          uuid,
    epoch           bigint NOT NULL DEFAULT 0,
    last_full_at    timestamptz,
    last_success_at timestamptz,
    last_error      text
);

COMMENT ON TABLE roster.accounts IS 'Harvest accounts that are mirrored here, and which process writes each';
COMMENT ON COLUMN roster.accounts.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.accounts.name IS 'Name of the company';
COMMENT ON COLUMN roster.accounts.user_id IS 'The token''s owner: roster.users.id';
COMMENT ON COLUMN roster.accounts.access_roles IS 'Access roles of the token''s owner when last asked';
COMMENT ON COLUMN roster.accounts.holder IS 'The process that writes this account: roster.replicas.id; null when nobody does';
COMMENT ON COLUMN roster.accounts.epoch IS 'One more with each take-over; a writer with an older one cannot commit';
COMMENT ON COLUMN roster.accounts.last_full_at IS 'End of the last full read';
COMMENT ON COLUMN roster.accounts.last_success_at IS 'End of the last good cycle that wrote something; freshness is in roster.watermarks';
COMMENT ON COLUMN roster.accounts.last_error IS 'Why the last cycle failed; null after a good one';

CREATE TABLE roster.replicas (
    id         uuid        PRIMARY KEY,
    name       text        NOT NULL,
    started_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);

COMMENT ON TABLE roster.replicas IS 'A row for each running process';
COMMENT ON COLUMN roster.replicas.id IS 'Made anew by each process';
COMMENT ON COLUMN roster.replicas.name IS 'Host and process id, for people';
COMMENT ON COLUMN roster.replicas.started_at IS 'When the process registered, by the database''s clock';
COMMENT ON COLUMN roster.replicas.expires_at IS 'Silent until then, it counts as dead, by the database''s clock';

CREATE TABLE roster.permits (
    id      bigint      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    budget  text        NOT NULL,
    replica uuid        NOT NULL,
    permits int         NOT NULL CHECK (permits > 0),
    free_at timestamptz NOT NULL
);

CREATE INDEX permits_budget ON roster.permits (budget);

COMMENT ON TABLE roster.permits IS 'The shared budget of requests: chunks of it that processes hold';
COMMENT ON COLUMN roster.permits.id IS 'Number of the chunk';
COMMENT ON COLUMN roster.permits.budget IS 'Which budget: one for all, or one for each token';
COMMENT ON COLUMN roster.permits.replica IS 'The process that holds or held the chunk';
COMMENT ON COLUMN roster.permits.permits IS 'Requests the chunk allows in any window';
COMMENT ON COLUMN roster.permits.free_at IS 'From then on the chunk is free again, by the database''s clock; its holder prolongs it';

CREATE TABLE roster.watermarks (
    account_id      bigint      NOT NULL,
    resource        text        NOT NULL,
    watermark       timestamptz,
    clock_offset_ms bigint,
    last_attempt_at timestamptz,
    last_success_at timestamptz,
    last_full_at    timestamptz,
    next_full_at    timestamptz,
    idle_polls      bigint      NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, resource)
);

COMMENT ON TABLE roster.watermarks IS 'How far each list of each account has been read';
COMMENT ON COLUMN roster.watermarks.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.watermarks.resource IS 'users or user_assignments';
COMMENT ON COLUMN roster.watermarks.watermark IS 'The clock at the start of the last complete read: the earlier of Harvest''s and ours; null before the first';
COMMENT ON COLUMN roster.watermarks.clock_offset_ms IS 'Harvest''s clock less ours at that read, in milliseconds';
COMMENT ON COLUMN roster.watermarks.last_attempt_at IS 'When the last read that was recorded began';
COMMENT ON COLUMN roster.watermarks.last_success_at IS 'When the last complete read ended; written at most once a minute while nothing changes';
COMMENT ON COLUMN roster.watermarks.last_full_at IS 'When the last complete full read ended';
COMMENT ON COLUMN roster.watermarks.next_full_at IS 'When the next full read is due';
COMMENT ON COLUMN roster.watermarks.idle_polls IS 'Complete reads that found nothing, as last counted';

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

COMMENT ON TABLE roster.cycles IS 'A row for each cycle that changed something or failed; idle ones are counted in roster.watermarks';
COMMENT ON COLUMN roster.cycles.id IS 'Also in the payload of the cycle''s events and in the logs';
COMMENT ON COLUMN roster.cycles.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.cycles.mode IS 'incremental (what changed since the watermark) or full (everything)';
COMMENT ON COLUMN roster.cycles.started_at IS 'Start';
COMMENT ON COLUMN roster.cycles.finished_at IS 'End; null while it runs';
COMMENT ON COLUMN roster.cycles.outcome IS 'ok, failed, held (deletions wait for a person) or abandoned (left off before its end); null while it runs';
COMMENT ON COLUMN roster.cycles.requests IS 'Requests sent to Harvest';
COMMENT ON COLUMN roster.cycles.users_seen IS 'Users read';
COMMENT ON COLUMN roster.cycles.users_changed IS 'Users that made an event';
COMMENT ON COLUMN roster.cycles.assignments_seen IS 'Assignments read';
COMMENT ON COLUMN roster.cycles.assignments_changed IS 'Assignments that made an event';
COMMENT ON COLUMN roster.cycles.events IS 'Events written to the outbox';
COMMENT ON COLUMN roster.cycles.error IS 'Why it failed';

CREATE TABLE roster.rejected_records (
    account_id      bigint      NOT NULL,
    resource        text        NOT NULL,
    fingerprint     text        NOT NULL,
    record_id       bigint,
    raw             bytea       NOT NULL,
    raw_size        bigint      NOT NULL,
    error           text        NOT NULL,
    rosterd_version text        NOT NULL,
    first_seen_at   timestamptz NOT NULL,
    last_seen_at    timestamptz NOT NULL,
    PRIMARY KEY (account_id, resource, fingerprint)
);

COMMENT ON TABLE roster.rejected_records IS 'Records that could not be read; the rest of their page went through';
COMMENT ON COLUMN roster.rejected_records.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.rejected_records.resource IS 'users or user_assignments';
COMMENT ON COLUMN roster.rejected_records.fingerprint IS 'The record''s id where it can be read, else a hash of its text';
COMMENT ON COLUMN roster.rejected_records.record_id IS 'Harvest''s id of the record; null where it cannot be read';
COMMENT ON COLUMN roster.rejected_records.raw IS 'The record as received, cut at 64 KiB';
COMMENT ON COLUMN roster.rejected_records.raw_size IS 'Its whole size in bytes';
COMMENT ON COLUMN roster.rejected_records.error IS 'Why it could not be read; names fields, never values';
COMMENT ON COLUMN roster.rejected_records.rosterd_version IS 'The rosterd that could not read it';
COMMENT ON COLUMN roster.rejected_records.first_seen_at IS 'When it was first met';
COMMENT ON COLUMN roster.rejected_records.last_seen_at IS 'When it was last met; moves at most hourly';
