-- A record that PostgreSQL refused is tried again at every poll: the reason may lie in the database, and be gone.

ALTER TABLE roster.rejected_records ADD COLUMN refused_by_database bool NOT NULL DEFAULT false;
COMMENT ON COLUMN roster.rejected_records.refused_by_database IS 'Whether PostgreSQL refused the record, while it accepted others; such a record is tried again at every poll';
COMMENT ON COLUMN roster.rejected_records.raw IS 'The record as received; cut at 64 KiB, unless PostgreSQL refused it';
COMMENT ON TABLE roster.rejected_records IS 'Records that could not be read, or that PostgreSQL refused; the rest of their page went through';
