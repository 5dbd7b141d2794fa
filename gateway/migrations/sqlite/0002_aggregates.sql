-- Counts over records, kept with each write: one row for each township or county and period, with the numbers of all
-- counts and classes. The sum that one gateway slot keeps is a row of its own; they are added when they are read.
DROP TABLE tally;

CREATE TABLE tally (
    -- 1: a township's; 0: a county's, or of the records whose home lies above the counties.
    township INTEGER NOT NULL,
    -- 0: now, and of all days; 202610: a month's sums; 20261000: the single days of a month.
    period INTEGER NOT NULL,
    county INTEGER NOT NULL,
    division INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    -- How often the flows of the month were changed after it was over.
    revision INTEGER NOT NULL,
    -- Pairs of key and number: see gateway/src/aggregate/cells.rs.
    numbers BLOB NOT NULL,
    PRIMARY KEY (township, period, county, division, slot)
) STRICT;
