-- Functions for consumers of the outbox: fetch, process, acknowledge; and an initial load without a gap.

CREATE TABLE roster.consumers (
    name       text        PRIMARY KEY CHECK (name <> '' AND name !~ '[[:cntrl:]]'),
    acked_seq  bigint      NOT NULL DEFAULT 0,
    acked_id   uuid,
    stream_id  uuid        NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    owner      name        NOT NULL DEFAULT session_user
);

COMMENT ON TABLE roster.consumers IS 'Consumers of the outbox, and their positions';
COMMENT ON COLUMN roster.consumers.name IS 'Name of the consumer; processes with the same name share one position';
COMMENT ON COLUMN roster.consumers.acked_seq IS 'The last acknowledged event; 0 before the first';
COMMENT ON COLUMN roster.consumers.acked_id IS 'Id of that event; a different id at this seq means that the database was restored to an earlier state; null if none';
COMMENT ON COLUMN roster.consumers.stream_id IS 'The stream that the consumer reads: roster.outbox_head.stream_id when it started';
COMMENT ON COLUMN roster.consumers.updated_at IS 'When the position last changed';
COMMENT ON COLUMN roster.consumers.owner IS 'The login that registered the consumer; that login and its members may change the position';

CREATE FUNCTION roster.snapshot_position(OUT seq bigint, OUT stream_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT head.seq, head.stream_id FROM roster.outbox_head AS head $$;
COMMENT ON FUNCTION roster.snapshot_position IS 'Position of the outbox in this snapshot. Copy tables and call it in one REPEATABLE READ transaction, then call outbox_start(name, seq)';

-- Names are not secret, so a login may change only its own consumers. session_user is the login, also in a SECURITY
-- DEFINER function.
CREATE FUNCTION roster.check_owner(consumer text, owner name) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF to_regrole(quote_ident(owner)) IS NULL OR NOT pg_has_role(session_user, owner, 'MEMBER') THEN
        RAISE EXCEPTION 'consumer % belongs to %', consumer, owner
            USING ERRCODE = '42501', HINT = 'Use another name, or delete the row of roster.consumers as its owner.';
    END IF;
END $$;
COMMENT ON FUNCTION roster.check_owner IS 'Raises an error unless the login is a member of the consumer''s owner';

CREATE FUNCTION roster.outbox_position(consumer text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head roster.outbox_head;
    mine roster.consumers;
    problem text;
BEGIN
    SELECT * INTO STRICT head FROM roster.outbox_head;
    SELECT * INTO mine FROM roster.consumers WHERE name = consumer;
    IF NOT FOUND THEN
        INSERT INTO roster.consumers (name, stream_id) VALUES (consumer, head.stream_id) ON CONFLICT DO NOTHING;
        SELECT * INTO STRICT mine FROM roster.consumers WHERE name = consumer;
    END IF;
    PERFORM roster.check_owner(consumer, mine.owner);
    IF mine.stream_id <> head.stream_id THEN
        problem := 'the database was restored to an earlier state, and a new stream has begun';
    ELSIF mine.acked_seq < head.floor_seq THEN
        problem := format('the events up to %s were removed, and the last acknowledged event is %s', head.floor_seq, mine.acked_seq);
    ELSIF mine.acked_id IS NOT NULL AND mine.acked_seq > head.floor_seq
        AND NOT EXISTS (SELECT FROM roster.outbox WHERE seq = mine.acked_seq AND id = mine.acked_id) THEN
        problem := format('event %s was removed or replaced', mine.acked_seq);
    END IF;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'consumer % cannot continue: %', consumer, problem
            USING ERRCODE = 'RS001', HINT = 'Reload from a snapshot (snapshot_position), then call outbox_start.';
    END IF;
    RETURN mine.acked_seq;
END $$;
COMMENT ON FUNCTION roster.outbox_position IS 'The last event that a consumer acknowledged; registers a new consumer at 0; raises SQLSTATE RS001 if the consumer lost events';

CREATE FUNCTION roster.outbox_fetch(consumer text, max int) RETURNS SETOF roster.outbox
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    mine bigint := roster.outbox_position(consumer);
BEGIN
    RETURN QUERY SELECT * FROM roster.outbox WHERE seq > mine ORDER BY seq LIMIT max;
    -- Check again: retention may have removed events between the first check and the query.
    PERFORM roster.outbox_position(consumer);
END $$;
COMMENT ON FUNCTION roster.outbox_fetch IS 'The next events of a consumer, in order; the same ones until it acknowledges them. Registers a new consumer at 0; raises SQLSTATE RS001 if the consumer lost events';

CREATE FUNCTION roster.outbox_ack(consumer text, seq bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    mine bigint := roster.outbox_position(consumer);
    head bigint := (SELECT outbox_head.seq FROM roster.outbox_head);
    upto bigint := outbox_ack.seq;
BEGIN
    IF upto IS NULL OR upto > head THEN
        RAISE EXCEPTION 'consumer % cannot acknowledge event %: the last event is %', consumer, upto, head
            USING ERRCODE = '22023';
    END IF;
    UPDATE roster.consumers
       SET acked_seq = upto, acked_id = (SELECT id FROM roster.outbox WHERE outbox.seq = upto), updated_at = now()
     WHERE name = consumer AND acked_seq < upto;
    RETURN greatest(mine, upto);
END $$;
COMMENT ON FUNCTION roster.outbox_ack IS 'Acknowledges all events up to seq; never moves back; returns the consumer''s position';

CREATE FUNCTION roster.outbox_start(consumer text, seq bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    head roster.outbox_head;
    after bigint := outbox_start.seq;
BEGIN
    SELECT * INTO STRICT head FROM roster.outbox_head;
    IF after IS NULL OR after NOT BETWEEN head.floor_seq AND head.seq THEN
        RAISE EXCEPTION 'consumer % cannot start after event %: valid are % to %', consumer, after, head.floor_seq, head.seq
            USING ERRCODE = '22023';
    END IF;
    PERFORM roster.check_owner(consumer, owner) FROM roster.consumers WHERE name = consumer;
    INSERT INTO roster.consumers AS mine (name, acked_seq, acked_id, stream_id)
    VALUES (consumer, after, (SELECT id FROM roster.outbox WHERE outbox.seq = after), head.stream_id)
    ON CONFLICT (name) DO UPDATE
       SET acked_seq = excluded.acked_seq, acked_id = excluded.acked_id, stream_id = excluded.stream_id, updated_at = now();
END $$;
COMMENT ON FUNCTION roster.outbox_start IS 'Registers a consumer that has loaded a snapshot up to seq, or resets one that has reloaded';

-- The same without pay data.

CREATE FUNCTION directory.snapshot_position(OUT seq bigint, OUT stream_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT * FROM roster.snapshot_position() $$;
COMMENT ON FUNCTION directory.snapshot_position IS 'Position of the outbox in this snapshot. Copy views and call it in one REPEATABLE READ transaction, then call outbox_start(name, seq)';

CREATE FUNCTION directory.outbox_fetch(consumer text, max int) RETURNS SETOF directory.events
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    mine bigint := roster.outbox_position(consumer);
BEGIN
    RETURN QUERY SELECT * FROM directory.events WHERE seq > mine ORDER BY seq LIMIT max;
    PERFORM roster.outbox_position(consumer);
END $$;
COMMENT ON FUNCTION directory.outbox_fetch IS 'Like roster.outbox_fetch, without pay data';

CREATE FUNCTION directory.outbox_ack(consumer text, seq bigint) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT roster.outbox_ack(consumer, seq) $$;
COMMENT ON FUNCTION directory.outbox_ack IS 'Like roster.outbox_ack';

CREATE FUNCTION directory.outbox_start(consumer text, seq bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT roster.outbox_start(consumer, seq) $$;
COMMENT ON FUNCTION directory.outbox_start IS 'Like roster.outbox_start';

-- The functions run with their owner's rights. deploy/roles.sql decides which roles may call them.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA roster, directory FROM PUBLIC;

CREATE VIEW directory.consumers AS
SELECT consumer.name, consumer.acked_seq, head.seq - consumer.acked_seq AS behind, consumer.updated_at
  FROM roster.consumers AS consumer, roster.outbox_head AS head;
COMMENT ON VIEW directory.consumers IS 'Consumers of events, and their positions';
COMMENT ON COLUMN directory.consumers.name IS 'Name of the consumer';
COMMENT ON COLUMN directory.consumers.acked_seq IS 'The last acknowledged event';
COMMENT ON COLUMN directory.consumers.behind IS 'Number of events after the last acknowledged one';
COMMENT ON COLUMN directory.consumers.updated_at IS 'When the position last changed';
