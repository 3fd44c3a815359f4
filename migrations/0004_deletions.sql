-- What is missing at Harvest and not yet, or not by itself, recorded as deleted; and what a count could not explain.

CREATE TABLE roster.held_deletions (
    account_id bigint      NOT NULL,
    resource   text        NOT NULL,
    record_id  bigint      NOT NULL,
    found_at   timestamptz NOT NULL,
    reason     text        NOT NULL CHECK (reason IN ('guard', 'not_administrator', 'empty_list')),
    decision   text        CHECK (decision IN ('accepted', 'rejected')),
    decided_at timestamptz,
    decided_by text,
    PRIMARY KEY (account_id, resource, record_id),
    CHECK ((decision IS NULL) = (decided_at IS NULL))
);

COMMENT ON TABLE roster.held_deletions IS 'Records that a full read did not show and that are not taken for deleted by themselves: a person decides, or a later read shows them again';
COMMENT ON COLUMN roster.held_deletions.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.held_deletions.resource IS 'users or user_assignments';
COMMENT ON COLUMN roster.held_deletions.record_id IS 'Harvest''s id of the record';
COMMENT ON COLUMN roster.held_deletions.found_at IS 'When a full read first did not show it';
COMMENT ON COLUMN roster.held_deletions.reason IS 'guard (too many at once), not_administrator (the token may not see everybody) or empty_list (Harvest showed nothing at all)';
COMMENT ON COLUMN roster.held_deletions.decision IS 'accepted (deleted once Harvest confirms it), rejected (the row is kept) or null (nobody has decided)';
COMMENT ON COLUMN roster.held_deletions.decided_at IS 'When it was decided';
COMMENT ON COLUMN roster.held_deletions.decided_by IS 'Who decided: the login and host of `rosterd deletions`';

CREATE TABLE roster.missed_records (
    account_id bigint      NOT NULL,
    resource   text        NOT NULL,
    record_id  bigint      NOT NULL,
    missed_at  timestamptz NOT NULL,
    PRIMARY KEY (account_id, resource, record_id)
);

COMMENT ON TABLE roster.missed_records IS 'Records too young to be believed gone at Harvest''s first 404: a second one, a poll interval later, deletes them';
COMMENT ON COLUMN roster.missed_records.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.missed_records.resource IS 'users or user_assignments';
COMMENT ON COLUMN roster.missed_records.record_id IS 'Harvest''s id of the record';
COMMENT ON COLUMN roster.missed_records.missed_at IS 'When Harvest first answered 404';

ALTER TABLE roster.watermarks
    ADD COLUMN unexplained_total    bigint,
    ADD COLUMN unexplained_expected bigint;

COMMENT ON COLUMN roster.watermarks.unexplained_total IS 'Harvest''s total that the last full read left unexplained; it starts no other full read. Null when all is explained';
COMMENT ON COLUMN roster.watermarks.unexplained_expected IS 'What the total should have been by the mirror';

-- The live rows are counted with each poll and listed with each full read.
CREATE INDEX users_live ON roster.users (account_id, id) WHERE deleted_at IS NULL;
CREATE INDEX user_assignments_live ON roster.user_assignments (account_id, id) WHERE deleted_at IS NULL;
