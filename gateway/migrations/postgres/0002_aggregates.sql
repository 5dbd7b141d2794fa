-- Counts over records: see the same file for SQLite.
DROP TABLE tally;

CREATE TABLE tally (
    township bigint NOT NULL,
    period bigint NOT NULL,
    county bigint NOT NULL,
    division bigint NOT NULL,
    slot bigint NOT NULL,
    revision bigint NOT NULL,
    numbers bytea NOT NULL,
    PRIMARY KEY (township, period, county, division, slot)
);
