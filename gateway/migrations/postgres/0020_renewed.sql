-- See sqlite/0020_renewed.sql.
ALTER TABLE shared ADD COLUMN renewed_ms BIGINT;
