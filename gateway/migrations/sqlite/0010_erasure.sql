-- 1: something was erased, and may still stand in unused bytes of the database or its log.
ALTER TABLE node ADD COLUMN unscrubbed INTEGER NOT NULL DEFAULT 0;
