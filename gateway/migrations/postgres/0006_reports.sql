-- Reports as they were issued. They are kept for good: what was printed can be printed again.
CREATE TABLE report (
    -- The county of the division.
    county bigint NOT NULL,
    division bigint NOT NULL,
    -- 2026-10
    period text COLLATE "C" NOT NULL,
    -- From 1, for each division and period.
    issue bigint NOT NULL,
    issued_ms bigint NOT NULL,
    issued_by text COLLATE "C" NOT NULL,
    as_of_ms bigint NOT NULL,
    -- The message guantong.v1.Report, encoded.
    content bytea NOT NULL,
    PRIMARY KEY (county, division, period, issue)
);
CREATE INDEX report_by_time ON report (issued_ms);
