-- Which company an account shows: another one in its place must not be mirrored.

ALTER TABLE roster.accounts ADD COLUMN base_uri text;

COMMENT ON COLUMN roster.accounts.base_uri IS 'Web address of the company, as Harvest had it at the last full read: if it or the name changes together with most users, cycles fail';
