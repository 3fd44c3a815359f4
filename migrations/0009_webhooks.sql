-- Webhooks: rosterd delivers events and notices by signed HTTP requests. The settings name the endpoints, so that a copy of the
-- database sends nothing. An endpoint reads the outbox as the consumer `webhook:NAME`; these tables hold the rest.

CREATE TABLE roster.webhooks (
    name            text        PRIMARY KEY,
    stream_id       uuid        NOT NULL,
    holder          uuid,
    epoch           bigint      NOT NULL DEFAULT 0,
    state           text        NOT NULL DEFAULT 'on' CHECK (state IN ('on', 'paused', 'gone', 'lost')),
    state_by        text,
    reason          text,
    failing_since   timestamptz,
    attempts        integer     NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    failed_seq      bigint,
    failure         text,
    refused_id      uuid,
    refused_since   timestamptz,
    refusals        integer     NOT NULL DEFAULT 0,
    delivered       bigint      NOT NULL DEFAULT 0,
    delivered_at    timestamptz,
    seen_at         timestamptz NOT NULL
);

COMMENT ON TABLE roster.webhooks IS 'Endpoints of webhooks; the settings have their addresses and secrets, and roster.consumers has their positions as webhook:NAME';
COMMENT ON COLUMN roster.webhooks.name IS 'Name of the endpoint in the settings';
COMMENT ON COLUMN roster.webhooks.stream_id IS 'The stream of events that the receiver knows; if the outbox has another one, rosterd.stream_begun is sent before the next event';
COMMENT ON COLUMN roster.webhooks.holder IS 'The process that delivers: roster.replicas.id; null if none does';
COMMENT ON COLUMN roster.webhooks.epoch IS 'Raised when another process takes over and by each command that changes the endpoint; results of an earlier epoch are not stored';
COMMENT ON COLUMN roster.webhooks.state IS 'on; paused by an operator; gone (the receiver answered 410); lost (retention removed events before they were delivered)';
COMMENT ON COLUMN roster.webhooks.state_by IS 'Login and host of the operator who last changed the state; null if rosterd did';
COMMENT ON COLUMN roster.webhooks.reason IS 'The operator''s reason for a pause';
COMMENT ON COLUMN roster.webhooks.failing_since IS 'When the first attempt failed after the last delivery; null if the last attempt succeeded';
COMMENT ON COLUMN roster.webhooks.attempts IS 'Failed attempts since the last delivery';
COMMENT ON COLUMN roster.webhooks.next_attempt_at IS 'No attempt begins before this time';
COMMENT ON COLUMN roster.webhooks.failed_seq IS 'The event of the last failed attempt; null for a message that is no event';
COMMENT ON COLUMN roster.webhooks.failure IS 'The last failure, without the address: status, timeout, connect, dns, tls, reset or redirect';
COMMENT ON COLUMN roster.webhooks.refused_id IS 'Id of the event that the receiver refused last with 400, 413, 415 or 422; null after a failure of another kind';
COMMENT ON COLUMN roster.webhooks.refused_since IS 'When the receiver first refused that event';
COMMENT ON COLUMN roster.webhooks.refusals IS 'How often the receiver refused that event';
COMMENT ON COLUMN roster.webhooks.delivered IS 'Number of events that the receiver accepted';
COMMENT ON COLUMN roster.webhooks.delivered_at IS 'When the receiver last accepted an event';
COMMENT ON COLUMN roster.webhooks.seen_at IS 'The last start of a daemon whose settings name the endpoint';

CREATE TABLE roster.webhook_skips (
    name       text        NOT NULL,
    event_id   uuid        NOT NULL,
    seq        bigint      NOT NULL,
    type       text        NOT NULL,
    failure    text,
    skipped_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    skipped_by text,
    reason     text,
    sent_at    timestamptz,
    PRIMARY KEY (name, event_id)
);

COMMENT ON TABLE roster.webhook_skips IS 'Events that an endpoint does not get: passed over after repeated refusals, or skipped by an operator';
COMMENT ON COLUMN roster.webhook_skips.name IS 'Name of the endpoint';
COMMENT ON COLUMN roster.webhook_skips.event_id IS 'roster.outbox.id';
COMMENT ON COLUMN roster.webhook_skips.seq IS 'roster.outbox.seq';
COMMENT ON COLUMN roster.webhook_skips.type IS 'roster.outbox.type';
COMMENT ON COLUMN roster.webhook_skips.failure IS 'The last failure, without the address';
COMMENT ON COLUMN roster.webhook_skips.skipped_at IS 'When the event was skipped';
COMMENT ON COLUMN roster.webhook_skips.skipped_by IS 'Login and host of the operator; null if rosterd passed over the event and no operator has decided';
COMMENT ON COLUMN roster.webhook_skips.reason IS 'The operator''s reason';
COMMENT ON COLUMN roster.webhook_skips.sent_at IS 'When `rosterd webhooks replay --event` delivered the event after all';

-- Notices are webhooks that say that a person is needed, and that this is over. They are no events, so they have no position
-- in the outbox. A row is a concern of which the receiver of an endpoint has been notified, or will be.
CREATE TABLE roster.webhook_notices (
    name            text        NOT NULL,
    concern         text        NOT NULL,
    state           text        NOT NULL DEFAULT 'new' CHECK (state IN ('new', 'needed', 'over')),
    data            jsonb       NOT NULL,
    began_at        timestamptz NOT NULL,
    absent_since    timestamptz,
    is_accepted     boolean     NOT NULL DEFAULT false,
    attempts        integer     NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    failure         text,
    PRIMARY KEY (name, concern)
);

COMMENT ON TABLE roster.webhook_notices IS 'Concerns of which the receiver of a webhook has been notified, or will be';
COMMENT ON COLUMN roster.webhook_notices.name IS 'Name of the endpoint';
COMMENT ON COLUMN roster.webhook_notices.concern IS 'Kind, and the account, list, consumer or webhook, such as deletions_held/123456/users';
COMMENT ON COLUMN roster.webhook_notices.state IS 'new: nothing was sent; needed: rosterd.attention_needed was sent at least once; over: rosterd.attention_over is to be sent';
COMMENT ON COLUMN roster.webhook_notices.data IS 'The concern as the messages show it: ids, names of lists, a sentence and a command, without personal data';
COMMENT ON COLUMN roster.webhook_notices.began_at IS 'When rosterd first found the concern';
COMMENT ON COLUMN roster.webhook_notices.absent_since IS 'When rosterd first did not find the concern any more; null while it lasts';
COMMENT ON COLUMN roster.webhook_notices.is_accepted IS 'Whether the receiver accepted rosterd.attention_needed';
COMMENT ON COLUMN roster.webhook_notices.attempts IS 'Attempts of the message that is to be sent';
COMMENT ON COLUMN roster.webhook_notices.next_attempt_at IS 'No attempt begins before this time';
COMMENT ON COLUMN roster.webhook_notices.failure IS 'The last failure, without the address';

CREATE FUNCTION roster.outbox_seq_at(at timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    low bigint;
    high bigint;
    middle bigint;
BEGIN
    SELECT floor_seq, seq INTO STRICT low, high FROM roster.outbox_head;
    -- seq has no gaps, so a binary search by the primary key finds the place; recorded_at has no index.
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        IF coalesce((SELECT recorded_at < at FROM roster.outbox WHERE seq = middle), true) THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END $$;
COMMENT ON FUNCTION roster.outbox_seq_at IS 'The last event that was recorded before this time; at least roster.outbox_head.floor_seq';

CREATE FUNCTION roster.outbox_seq_before_stream() RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head roster.outbox_head;
    low bigint;
    high bigint;
    middle bigint;
BEGIN
    SELECT * INTO STRICT head FROM roster.outbox_head;
    low := head.floor_seq;
    high := head.seq;
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        IF coalesce((SELECT payload ->> 'stream_id' <> head.stream_id::text FROM roster.outbox WHERE seq = middle), true) THEN
            low := middle;
        ELSE
            high := middle - 1;
        END IF;
    END LOOP;
    RETURN low;
END $$;
COMMENT ON FUNCTION roster.outbox_seq_before_stream IS 'The last event that does not belong to the current stream; at least roster.outbox_head.floor_seq';

CREATE FUNCTION roster.event_ids(payload jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object(
               'account_id', payload -> 'account_id', 'id', payload -> 'id', 'type', payload -> 'type',
               'version', payload -> 'version', 'stream_id', payload -> 'stream_id',
               'user_id', coalesce(payload -> 'user_id', payload #> '{after,user_id}', payload #> '{before,user_id}')))
           || jsonb_build_object('changed', coalesce((SELECT jsonb_agg(key) FROM jsonb_object_keys(payload -> 'changed') AS key), '[]'))
$$;
COMMENT ON FUNCTION roster.event_ids IS 'What of an event''s payload contains no value of a user: ids, type, version, stream, and the names of changed fields';

REVOKE ALL ON FUNCTION roster.outbox_seq_at, roster.outbox_seq_before_stream, roster.event_ids FROM PUBLIC;
