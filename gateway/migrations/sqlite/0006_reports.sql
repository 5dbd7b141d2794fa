-- Reports as they were issued. They are kept for good: what was printed can be printed again.
CREATE TABLE report (
    -- The county of the division.
    county INTEGER NOT NULL,
    division INTEGER NOT NULL,
    -- 2026-10
    period TEXT NOT NULL,
    -- From 1, for each division and period.
    issue INTEGER NOT NULL,
    issued_ms INTEGER NOT NULL,
    issued_by TEXT NOT NULL,
    as_of_ms INTEGER NOT NULL,
    -- The message guantong.v1.Report, encoded.
    content BLOB NOT NULL,
    PRIMARY KEY (county, division, period, issue)
) STRICT;
CREATE INDEX report_by_time ON report (issued_ms);
