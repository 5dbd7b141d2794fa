-- Whether both ends of a link hold the same, as they last compared: see gateway/src/comparing/link_proof.rs. Written when
-- that changes, and now and then: the process that runs the link knows better.
CREATE TABLE link_proof (
    peer INTEGER PRIMARY KEY,
    -- 0 equal, 1 to 19 not known and why, 20 differs, 21 differs although it was repaired.
    state INTEGER NOT NULL,
    -- Records found to differ.
    records INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    -- NULL: never.
    compared_ms INTEGER,
    equal_ms INTEGER,
    left_out INTEGER NOT NULL,
    refused INTEGER NOT NULL
) STRICT;
