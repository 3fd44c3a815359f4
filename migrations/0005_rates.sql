-- The histories of billable and cost rates, kept where rates.histories is set. All of it is pay.

CREATE TABLE roster.billable_rates (
    account_id   bigint      NOT NULL,
    id           bigint      NOT NULL,
    user_id      bigint,
    amount       numeric,
    start_date   date,
    end_date     date,
    created_at   timestamptz,
    updated_at   timestamptz,
    raw          jsonb       NOT NULL,
    version      bigint      NOT NULL CHECK (version >= 1),
    content_hash bigint      NOT NULL,
    synced_at    timestamptz NOT NULL,
    deleted_at   timestamptz,
    PRIMARY KEY (account_id, id)
);
CREATE INDEX billable_rates_user ON roster.billable_rates (account_id, user_id);

COMMENT ON TABLE roster.billable_rates IS 'What an hour of each person was billed at, and when; pay. Only with rates.histories';
COMMENT ON COLUMN roster.billable_rates.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.billable_rates.id IS 'Harvest''s id of the rate, unique within the account';
COMMENT ON COLUMN roster.billable_rates.user_id IS 'The person: roster.users.id';
COMMENT ON COLUMN roster.billable_rates.amount IS 'Amount an hour, in the account''s currency; pay';
COMMENT ON COLUMN roster.billable_rates.start_date IS 'First day; null for the first rate of all';
COMMENT ON COLUMN roster.billable_rates.end_date IS 'Last day; null for the rate that counts now';
COMMENT ON COLUMN roster.billable_rates.created_at IS 'When Harvest made the rate';
COMMENT ON COLUMN roster.billable_rates.updated_at IS 'Harvest''s stamp of the last change, in whole seconds';
COMMENT ON COLUMN roster.billable_rates.raw IS 'The object of the last write as received, unknown fields included, never merged; pay';
COMMENT ON COLUMN roster.billable_rates.version IS '1 when first seen, one more with each event';
COMMENT ON COLUMN roster.billable_rates.content_hash IS 'Hash of raw, by which a read sees that nothing changed without reading the row';
COMMENT ON COLUMN roster.billable_rates.synced_at IS 'When this row was last written';
COMMENT ON COLUMN roster.billable_rates.deleted_at IS 'When it was gone from the complete list of its user; null while Harvest has it';

CREATE TABLE roster.cost_rates (
    account_id   bigint      NOT NULL,
    id           bigint      NOT NULL,
    user_id      bigint,
    amount       numeric,
    start_date   date,
    end_date     date,
    created_at   timestamptz,
    updated_at   timestamptz,
    raw          jsonb       NOT NULL,
    version      bigint      NOT NULL CHECK (version >= 1),
    content_hash bigint      NOT NULL,
    synced_at    timestamptz NOT NULL,
    deleted_at   timestamptz,
    PRIMARY KEY (account_id, id)
);
CREATE INDEX cost_rates_user ON roster.cost_rates (account_id, user_id);

COMMENT ON TABLE roster.cost_rates IS 'What an hour of each person cost, and when; pay. Only with rates.histories';
COMMENT ON COLUMN roster.cost_rates.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.cost_rates.id IS 'Harvest''s id of the rate, unique within the account';
COMMENT ON COLUMN roster.cost_rates.user_id IS 'The person: roster.users.id';
COMMENT ON COLUMN roster.cost_rates.amount IS 'Amount an hour, in the account''s currency; pay';
COMMENT ON COLUMN roster.cost_rates.start_date IS 'First day; null for the first rate of all';
COMMENT ON COLUMN roster.cost_rates.end_date IS 'Last day; null for the rate that counts now';
COMMENT ON COLUMN roster.cost_rates.created_at IS 'When Harvest made the rate';
COMMENT ON COLUMN roster.cost_rates.updated_at IS 'Harvest''s stamp of the last change, in whole seconds';
COMMENT ON COLUMN roster.cost_rates.raw IS 'The object of the last write as received, unknown fields included, never merged; pay';
COMMENT ON COLUMN roster.cost_rates.version IS '1 when first seen, one more with each event';
COMMENT ON COLUMN roster.cost_rates.content_hash IS 'Hash of raw, by which a read sees that nothing changed without reading the row';
COMMENT ON COLUMN roster.cost_rates.synced_at IS 'When this row was last written';
COMMENT ON COLUMN roster.cost_rates.deleted_at IS 'When it was gone from the complete list of its user; null while Harvest has it';

CREATE TABLE roster.rate_reads (
    account_id bigint      NOT NULL,
    user_id    bigint      NOT NULL,
    read_at    timestamptz NOT NULL,
    PRIMARY KEY (account_id, user_id)
);

COMMENT ON TABLE roster.rate_reads IS 'When the rate histories of each person were last read: they are due again when the person has changed since, or a full read has run';
COMMENT ON COLUMN roster.rate_reads.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.rate_reads.user_id IS 'The person: roster.users.id';
COMMENT ON COLUMN roster.rate_reads.read_at IS 'The database''s clock before the request was sent';

COMMENT ON COLUMN roster.outbox.aggregatetype IS 'user, user_assignment or, with rates.histories, billable_rate or cost_rate';
COMMENT ON COLUMN roster.watermarks.last_full_at IS 'When the last full read ended, its deletions settled';
