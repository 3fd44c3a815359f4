-- Notices: webhooks that say that a person is needed, and that this is over. They are no events, so they have no position
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
