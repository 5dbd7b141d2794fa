-- The timeline of PostgreSQL that the store was written on last: another one means that a standby took over or a backup
-- was put back. NULL: not known, as always in SQLite.
ALTER TABLE shared ADD COLUMN timeline INTEGER;
