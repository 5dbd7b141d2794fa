-- See sqlite/0014_sums.sql.
CREATE TABLE link_sum (
    peer bigint NOT NULL,
    county bigint NOT NULL,
    kind bigint NOT NULL,
    home bigint NOT NULL,
    slot bigint NOT NULL,
    sums bytea NOT NULL,
    PRIMARY KEY (peer, county, kind, home, slot)
);

ALTER TABLE peer ADD COLUMN summed_through bigint NOT NULL DEFAULT 0;
