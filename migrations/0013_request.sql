-- An event tells by which request its change was seen, since `rosterd explain` answers whoever wonders where it comes from.

COMMENT ON COLUMN roster.outbox.payload IS 'The change: account_id, id, type, version, changed, before, after, cycle_id, mode, request, stream_id; holds pay';
COMMENT ON COLUMN directory.events.payload IS 'The change: account_id, id, type, version, changed, before, after, cycle_id, mode, request, stream_id; without pay';
