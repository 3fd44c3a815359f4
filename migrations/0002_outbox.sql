-- The outbox: every change of the mirror, written in the transaction that makes it.
-- id, aggregatetype, aggregateid, type and payload are what Debezium's Outbox Event Router reads by default.

CREATE TABLE roster.outbox (
    seq           bigint      PRIMARY KEY,
    id            uuid        NOT NULL UNIQUE,
    aggregatetype text        NOT NULL,
    aggregateid   text        NOT NULL,
    type          text        NOT NULL,
    payload       jsonb       NOT NULL,
    account_id    bigint      NOT NULL,
    version       bigint      NOT NULL,
    occurred_at   timestamptz NOT NULL,
    recorded_at   timestamptz NOT NULL,
    UNIQUE (account_id, aggregatetype, aggregateid, version)
);

COMMENT ON TABLE roster.outbox IS 'Every change, in commit order, gapless by seq; rows are never updated, retention deletes the oldest';
COMMENT ON COLUMN roster.outbox.seq IS 'Position: 1, 2, 3 … in commit order over all accounts; read on with WHERE seq > mine ORDER BY seq';
COMMENT ON COLUMN roster.outbox.id IS 'UUIDv5 of stream, aggregate and version: the same change has the same id however often it is tried';
COMMENT ON COLUMN roster.outbox.aggregatetype IS 'user or user_assignment';
COMMENT ON COLUMN roster.outbox.aggregateid IS 'ACCOUNT/ID of the record';
COMMENT ON COLUMN roster.outbox.type IS 'What happened: created, updated, deactivated, reactivated or deleted, after the aggregate''s type and a dot';
COMMENT ON COLUMN roster.outbox.payload IS 'The change: account_id, id, type, version, changed, before, after, cycle_id, mode, stream_id; holds pay';
COMMENT ON COLUMN roster.outbox.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.outbox.version IS 'The record''s version after this change: 1, 2, 3 … for each aggregate';
COMMENT ON COLUMN roster.outbox.occurred_at IS 'Harvest''s updated_at; for a deletion, when it was confirmed';
COMMENT ON COLUMN roster.outbox.recorded_at IS 'When the event was written, by the database''s clock';

CREATE TABLE roster.outbox_head (
    one               bool   PRIMARY KEY DEFAULT true CHECK (one),
    seq               bigint NOT NULL DEFAULT 0,
    floor_seq         bigint NOT NULL DEFAULT 0,
    stream_id         uuid   NOT NULL DEFAULT gen_random_uuid(),
    system_identifier bigint,
    timeline_id       int
);
INSERT INTO roster.outbox_head DEFAULT VALUES;

COMMENT ON TABLE roster.outbox_head IS 'One row: where the outbox stands. Locked last in each transaction that writes events, which makes seq gapless';
COMMENT ON COLUMN roster.outbox_head.one IS 'Always true: there is one row';
COMMENT ON COLUMN roster.outbox_head.seq IS 'The highest seq given out';
COMMENT ON COLUMN roster.outbox_head.floor_seq IS 'The highest seq that retention has removed; 0 when none';
COMMENT ON COLUMN roster.outbox_head.stream_id IS 'Names this history; a new one means that history was rewound: load afresh';
COMMENT ON COLUMN roster.outbox_head.system_identifier IS 'The PostgreSQL cluster that wrote last; another one means a restore';
COMMENT ON COLUMN roster.outbox_head.timeline_id IS 'Its timeline; another one means a fail-over or a point-in-time restore';
