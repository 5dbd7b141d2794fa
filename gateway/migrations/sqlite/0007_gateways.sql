-- What all gateways of a store keep in memory (peers, writers, divisions, grants, claims and the like) has a number that
-- rises with each change of it: whoever decided by an earlier state decides again. One row.
CREATE TABLE shared (
    revision INTEGER NOT NULL,
    -- The number at which divisions and thresholds were changed last.
    tables INTEGER NOT NULL
) STRICT;
INSERT INTO shared (revision, tables) VALUES (0, 0);

-- The slot of the gateway that greeted the peer last: its link is there.
ALTER TABLE peer ADD COLUMN slot INTEGER NOT NULL DEFAULT 0;
