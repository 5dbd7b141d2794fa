-- See sqlite/0007_gateways.sql.
CREATE TABLE shared (
    revision BIGINT NOT NULL,
    tables BIGINT NOT NULL
);
INSERT INTO shared (revision, tables) VALUES (0, 0);

ALTER TABLE peer ADD COLUMN slot BIGINT NOT NULL DEFAULT 0;
