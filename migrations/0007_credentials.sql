-- OAuth2 tokens live for days and each renewal may end the old ones: the newest must survive a restart and serve every
-- replica. They are sealed; what opens them is not in the database.

CREATE TABLE roster.credentials (
    account_id    bigint      PRIMARY KEY,
    ciphertext    bytea,
    nonce         bytea       CHECK ((nonce IS NULL) = (ciphertext IS NULL)),
    expires_at    timestamptz,
    seed_hash     bytea,
    updated_at    timestamptz NOT NULL,
    claimed_by    uuid,
    claimed_until timestamptz CHECK ((claimed_until IS NULL) = (claimed_by IS NULL))
);

COMMENT ON TABLE roster.credentials IS 'The newest OAuth2 tokens of each account, sealed with a key that is derived from the application''s client secret';
COMMENT ON COLUMN roster.credentials.account_id IS 'Harvest account';
COMMENT ON COLUMN roster.credentials.ciphertext IS 'The tokens, AES-256-GCM; null while the first ones are being asked for';
COMMENT ON COLUMN roster.credentials.nonce IS 'Nonce of the ciphertext';
COMMENT ON COLUMN roster.credentials.expires_at IS 'When the access token ends; null where Harvest did not say. Before that it is renewed';
COMMENT ON COLUMN roster.credentials.seed_hash IS 'Keyed hash of the first refresh token in the settings when these tokens were stored, which is used up; null where there was none. Another one in the settings is tried once what is stored is refused';
COMMENT ON COLUMN roster.credentials.updated_at IS 'When the tokens were stored';
COMMENT ON COLUMN roster.credentials.claimed_by IS 'The process that is asking for new tokens: the others wait; null when nobody does';
COMMENT ON COLUMN roster.credentials.claimed_until IS 'When that claim ends if nothing is heard of it';
