-- Following the outbox without a mistake, from any language: fetch, work, ack. And a first load without a gap.

CREATE TABLE roster.consumers (
    name       text        PRIMARY KEY CHECK (name <> ''),
    acked_seq  bigint      NOT NULL DEFAULT 0,
    acked_id   uuid,
    stream_id  uuid        NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    owner      name        NOT NULL DEFAULT session_user
);

COMMENT ON TABLE roster.consumers IS 'Who follows the outbox by roster.outbox_fetch, and how far they are';
COMMENT ON COLUMN roster.consumers.name IS 'The name that the consumer gives itself; two processes under one name see the same events';
COMMENT ON COLUMN roster.consumers.acked_seq IS 'The last event that is dealt with; 0 before the first';
COMMENT ON COLUMN roster.consumers.acked_id IS 'Its id: another event in its place means that history was rewound; null for none';
COMMENT ON COLUMN roster.consumers.stream_id IS 'The history that it follows: roster.outbox_head.stream_id at its start';
COMMENT ON COLUMN roster.consumers.updated_at IS 'When it last moved';
COMMENT ON COLUMN roster.consumers.owner IS 'Who registered it: a login, and whoever is a member of it, may move it';

CREATE FUNCTION roster.snapshot_position(OUT seq bigint, OUT stream_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT head.seq, head.stream_id FROM roster.outbox_head AS head $$;
COMMENT ON FUNCTION roster.snapshot_position IS 'Where the outbox stands in this snapshot: copy tables and call it in one REPEATABLE READ transaction, then follow with outbox_start(name, seq)';

-- A name is no secret: nobody moves another one's consumer. session_user is the login, whoever owns the function.
CREATE FUNCTION roster.check_owner(consumer text, owner name) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF to_regrole(quote_ident(owner)) IS NULL OR NOT pg_has_role(session_user, owner, 'MEMBER') THEN
        RAISE EXCEPTION 'consumer % is %''s', consumer, owner
            USING ERRCODE = '42501', HINT = 'Take another name, or let that login give it up.';
    END IF;
END $$;
COMMENT ON FUNCTION roster.check_owner IS 'Refuses whoever is no member of the consumer''s owner';

CREATE FUNCTION roster.outbox_position(consumer text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head roster.outbox_head;
    mine roster.consumers;
    trouble text;
BEGIN
    SELECT * INTO STRICT head FROM roster.outbox_head;
    SELECT * INTO mine FROM roster.consumers WHERE name = consumer;
    IF NOT FOUND THEN
        INSERT INTO roster.consumers (name, stream_id) VALUES (consumer, head.stream_id) ON CONFLICT DO NOTHING;
        SELECT * INTO STRICT mine FROM roster.consumers WHERE name = consumer;
    END IF;
    PERFORM roster.check_owner(consumer, mine.owner);
    IF mine.stream_id <> head.stream_id THEN
        trouble := 'history was rewound, and a new stream has begun';
    ELSIF mine.acked_seq < head.floor_seq THEN
        trouble := format('the events up to %s were removed, and the last one dealt with is %s', head.floor_seq, mine.acked_seq);
    ELSIF mine.acked_id IS NOT NULL AND mine.acked_seq > head.floor_seq
        AND NOT EXISTS (SELECT FROM roster.outbox WHERE seq = mine.acked_seq AND id = mine.acked_id) THEN
        trouble := format('event %s is gone, or another than it was', mine.acked_seq);
    END IF;
    IF trouble IS NOT NULL THEN
        RAISE EXCEPTION 'consumer % cannot go on: %', consumer, trouble
            USING ERRCODE = 'RS001', HINT = 'Load afresh (snapshot_position), then call outbox_start.';
    END IF;
    RETURN mine.acked_seq;
END $$;
COMMENT ON FUNCTION roster.outbox_position IS 'The last event that a consumer has dealt with; registers a new one at 0; SQLSTATE RS001 where events were lost to it';

CREATE FUNCTION roster.outbox_fetch(consumer text, max int) RETURNS SETOF roster.outbox
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    mine bigint := roster.outbox_position(consumer);
BEGIN
    RETURN QUERY SELECT * FROM roster.outbox WHERE seq > mine ORDER BY seq LIMIT max;
    -- Again: what was removed between the two looks is missed by nobody.
    PERFORM roster.outbox_position(consumer);
END $$;
COMMENT ON FUNCTION roster.outbox_fetch IS 'The next events of a consumer, in order, the same ones until it acks; registers a new consumer at 0; SQLSTATE RS001 where events were lost to it';

CREATE FUNCTION roster.outbox_ack(consumer text, seq bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    mine bigint := roster.outbox_position(consumer);
    head bigint := (SELECT outbox_head.seq FROM roster.outbox_head);
    upto bigint := outbox_ack.seq;
BEGIN
    IF upto IS NULL OR upto > head THEN
        RAISE EXCEPTION 'consumer % cannot have dealt with event %: the last one is %', consumer, upto, head
            USING ERRCODE = '22023';
    END IF;
    UPDATE roster.consumers
       SET acked_seq = upto, acked_id = (SELECT id FROM roster.outbox WHERE outbox.seq = upto), updated_at = now()
     WHERE name = consumer AND acked_seq < upto;
    RETURN greatest(mine, upto);
END $$;
COMMENT ON FUNCTION roster.outbox_ack IS 'Says that a consumer has dealt with everything up to seq; moves forward only; tells where it is now';

CREATE FUNCTION roster.outbox_start(consumer text, seq bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    head roster.outbox_head;
    after bigint := outbox_start.seq;
BEGIN
    SELECT * INTO STRICT head FROM roster.outbox_head;
    IF after IS NULL OR after NOT BETWEEN head.floor_seq AND head.seq THEN
        RAISE EXCEPTION 'consumer % cannot start after event %: there are % to %', consumer, after, head.floor_seq, head.seq
            USING ERRCODE = '22023';
    END IF;
    PERFORM roster.check_owner(consumer, owner) FROM roster.consumers WHERE name = consumer;
    INSERT INTO roster.consumers AS mine (name, acked_seq, acked_id, stream_id)
    VALUES (consumer, after, (SELECT id FROM roster.outbox WHERE outbox.seq = after), head.stream_id)
    ON CONFLICT (name) DO UPDATE
       SET acked_seq = excluded.acked_seq, acked_id = excluded.acked_id, stream_id = excluded.stream_id, updated_at = now();
END $$;
COMMENT ON FUNCTION roster.outbox_start IS 'Registers a consumer that has loaded everything up to seq, or has loaded it afresh';

-- The same without pay.

CREATE FUNCTION directory.snapshot_position(OUT seq bigint, OUT stream_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT * FROM roster.snapshot_position() $$;
COMMENT ON FUNCTION directory.snapshot_position IS 'Where the outbox stands in this snapshot: copy views and call it in one REPEATABLE READ transaction, then follow with outbox_start(name, seq)';

CREATE FUNCTION directory.outbox_fetch(consumer text, max int) RETURNS SETOF directory.events
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    mine bigint := roster.outbox_position(consumer);
BEGIN
    RETURN QUERY SELECT * FROM directory.events WHERE seq > mine ORDER BY seq LIMIT max;
    PERFORM roster.outbox_position(consumer);
END $$;
COMMENT ON FUNCTION directory.outbox_fetch IS 'As roster.outbox_fetch, without pay';

CREATE FUNCTION directory.outbox_ack(consumer text, seq bigint) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT roster.outbox_ack(consumer, seq) $$;
COMMENT ON FUNCTION directory.outbox_ack IS 'As roster.outbox_ack';

CREATE FUNCTION directory.outbox_start(consumer text, seq bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT roster.outbox_start(consumer, seq) $$;
COMMENT ON FUNCTION directory.outbox_start IS 'As roster.outbox_start';

-- They run with the owner's rights: whom that is given to is the deployment's business (deploy/roles.sql).
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA roster, directory FROM PUBLIC;

CREATE VIEW directory.consumers AS
SELECT consumer.name, consumer.acked_seq, head.seq - consumer.acked_seq AS behind, consumer.updated_at
  FROM roster.consumers AS consumer, roster.outbox_head AS head;
COMMENT ON VIEW directory.consumers IS 'Who follows the events, and how far they are';
COMMENT ON COLUMN directory.consumers.name IS 'The consumer';
COMMENT ON COLUMN directory.consumers.acked_seq IS 'The last event that it has dealt with';
COMMENT ON COLUMN directory.consumers.behind IS 'Events since';
COMMENT ON COLUMN directory.consumers.updated_at IS 'When it last moved';
