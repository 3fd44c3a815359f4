-- What `rosterd sync` asks of the process that writes an account, and what that answered.

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

COMMENT ON TABLE roster.requests IS 'What was asked of the process that writes an account: NOTIFY roster_sync wakes it, and its next poll finds it too';
COMMENT ON COLUMN roster.requests.id IS 'Number of the request';
COMMENT ON COLUMN roster.requests.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.requests.kind IS 'sync (what is due), full (everything) or user (one person and their assignments)';
COMMENT ON COLUMN roster.requests.user_id IS 'The person, for kind user';
COMMENT ON COLUMN roster.requests.asked_at IS 'When it was asked';
COMMENT ON COLUMN roster.requests.taken_at IS 'When the work on it began';
COMMENT ON COLUMN roster.requests.done_at IS 'When it was done; null before';
COMMENT ON COLUMN roster.requests.outcome IS 'ok, no_such_record, refused (the token or the account) or unavailable (Harvest or the database); null before it is done';
COMMENT ON COLUMN roster.requests.answer IS 'A sentence for whoever asked; names people by id';
