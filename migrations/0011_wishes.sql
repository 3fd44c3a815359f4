-- A process that waits for permits says so by a chunk of none, so that another one with more than its share gives some back.

ALTER TABLE roster.permits DROP CONSTRAINT permits_permits_check, ADD CONSTRAINT permits_permits_check CHECK (permits >= 0);
COMMENT ON COLUMN roster.permits.permits IS 'Requests the chunk allows in any window; 0: the process waits for some';
