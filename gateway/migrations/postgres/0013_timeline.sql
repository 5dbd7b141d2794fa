-- See sqlite/0013_timeline.sql.
ALTER TABLE shared ADD COLUMN timeline BIGINT;
