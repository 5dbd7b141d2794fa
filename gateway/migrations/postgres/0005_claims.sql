-- What nodes claim: everything that a node stamped up to a moment is in. A row for every node below that was ever
-- linked, directly or further down, and one for the node itself, which keeps its later stamps above that moment.
CREATE TABLE claim (
    division bigint PRIMARY KEY,
    -- 0: the node is known and has claimed nothing.
    through_ms bigint NOT NULL,
    arrived_ms bigint NOT NULL,
    quarantined_count bigint NOT NULL
);

-- Rows of a peer's outbox got new numbers when they were joined, up to this one: whoever waits for rows of an earlier
-- number waits for these too.
CREATE TABLE outbox_joined (
    peer bigint PRIMARY KEY,
    seq bigint NOT NULL
);
