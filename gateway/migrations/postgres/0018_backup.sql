-- See sqlite/0018_backup.sql.
ALTER TABLE shared ADD COLUMN put_back_ms BIGINT;
ALTER TABLE shared ADD COLUMN place BIGINT;

CREATE TABLE recovery (
    cause BIGINT NOT NULL,
    begun_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    from_parent BIGINT NOT NULL,
    counted BIGINT NOT NULL
);

CREATE TABLE recovery_loss (
    kind BIGINT NOT NULL,
    field BIGINT NOT NULL,
    records BIGINT NOT NULL,
    PRIMARY KEY (kind, field)
);
