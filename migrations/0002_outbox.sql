-- The outbox: an event for every change of the mirror, written in the same transaction. id, aggregatetype, aggregateid,
-- type and payload are the columns that Debezium's Outbox Event Router reads by default.

CREATE TABLE roster.outbox (
    seq           bigint      PRIMARY KEY,
    id            uuid        NOT NULL,
    aggregatetype text        NOT NULL CHECK (aggregatetype IN ('user', 'user_assignment', 'billable_rate', 'cost_rate')),
    aggregateid   text        NOT NULL,
    type          text        NOT NULL,
    payload       jsonb       NOT NULL,
    account_id    bigint      NOT NULL,
    version       bigint      NOT NULL,
    occurred_at   timestamptz NOT NULL,
    recorded_at   timestamptz NOT NULL,
    record_id     bigint      NOT NULL,
    -- No version is emitted twice. id is computed from the same values, so it is unique too.
    UNIQUE (account_id, aggregatetype, record_id, version)
);
COMMENT ON INDEX roster.outbox_account_id_aggregatetype_record_id_version_key IS 'Question: all changes of a record (explain); and no version is emitted twice';

COMMENT ON TABLE roster.outbox IS 'An event for every change, in commit order, without gaps in seq. Retention deletes the oldest events; only `rosterd forget` changes a row';
COMMENT ON COLUMN roster.outbox.seq IS 'Position: 1, 2, 3 … in commit order over all accounts';
COMMENT ON COLUMN roster.outbox.id IS 'UUIDv5 of stream, aggregate and version: a retried change keeps its id';
COMMENT ON COLUMN roster.outbox.aggregatetype IS 'user, user_assignment or, with rates.histories, billable_rate or cost_rate';
COMMENT ON COLUMN roster.outbox.aggregateid IS 'ACCOUNT/ID: account and Harvest''s id of the record';
COMMENT ON COLUMN roster.outbox.type IS 'Type of the event: aggregatetype, a dot, and created, updated, deactivated, reactivated or deleted';
COMMENT ON COLUMN roster.outbox.payload IS 'The change: account_id, id, type, version, changed, before, after, cycle_id, mode, request, stream_id; contains pay data';
COMMENT ON COLUMN roster.outbox.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.outbox.version IS 'Version of the record after this change: 1, 2, 3 … for each record';
COMMENT ON COLUMN roster.outbox.occurred_at IS 'Harvest''s updated_at; for a deletion, when it was confirmed';
COMMENT ON COLUMN roster.outbox.recorded_at IS 'When the event was written, by the database''s clock';
COMMENT ON COLUMN roster.outbox.record_id IS 'Harvest''s id of the record';

CREATE TABLE roster.outbox_head (
    one               bool   PRIMARY KEY DEFAULT true CHECK (one),
    seq               bigint NOT NULL DEFAULT 0,
    floor_seq         bigint NOT NULL DEFAULT 0,
    stream_id         uuid   NOT NULL DEFAULT gen_random_uuid(),
    system_identifier bigint,
    timeline_id       int,
    timeline_seq      bigint NOT NULL DEFAULT 0,
    CHECK (floor_seq <= seq)
);
INSERT INTO roster.outbox_head DEFAULT VALUES;

COMMENT ON TABLE roster.outbox_head IS 'One row: the state of the outbox. Every transaction that writes events locks it last, so seq has no gaps';
COMMENT ON COLUMN roster.outbox_head.one IS 'Always true, so that there is one row';
COMMENT ON COLUMN roster.outbox_head.seq IS 'The highest seq assigned';
COMMENT ON COLUMN roster.outbox_head.floor_seq IS 'The highest seq that retention has removed; 0 if none';
COMMENT ON COLUMN roster.outbox_head.stream_id IS 'Id of the stream of events. A new id means that the database was restored to an earlier state, and consumers must reload';
COMMENT ON COLUMN roster.outbox_head.system_identifier IS 'PostgreSQL cluster of the last write; a different one means a restore';
COMMENT ON COLUMN roster.outbox_head.timeline_id IS 'Timeline of the last write; a different one means a failover or a point-in-time restore, and no event is written until rosterd has continued the stream or begun a new one';
COMMENT ON COLUMN roster.outbox_head.timeline_seq IS 'The last event before timeline_id began; a process that knows a later event of an earlier timeline begins a new stream';
