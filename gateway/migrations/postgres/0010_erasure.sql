-- 1: something was erased, and may still stand in dead rows.
ALTER TABLE node ADD COLUMN unscrubbed BIGINT NOT NULL DEFAULT 0;
