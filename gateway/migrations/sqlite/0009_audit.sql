-- The audit log: a chain of hashes for each gateway, so that none waits for another.
CREATE TABLE audit (
    slot INTEGER NOT NULL,
    -- From 1, without gaps.
    number INTEGER NOT NULL,
    -- Number, time and event stand in the line too, and only there are they hashed.
    time_ms INTEGER NOT NULL,
    event TEXT NOT NULL,
    -- One line of JSON.
    line TEXT NOT NULL,
    -- SHA-256 over the hash of the entry before and that of the line.
    hash BLOB NOT NULL,
    PRIMARY KEY (slot, number)
) STRICT, WITHOUT ROWID;

-- How far chains had come, signed by their nodes: this node's own, and those that its children handed in.
CREATE TABLE audit_checkpoint (
    division INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    -- The random number of the node's store at that time: a store that was put back begins another line.
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    hash BLOB NOT NULL,
    time_ms INTEGER NOT NULL,
    -- When it was kept here, by this node's clock.
    kept_ms INTEGER NOT NULL,
    -- Over division, slot, epoch, number, hash and time.
    signature BLOB NOT NULL,
    -- The certificates of who signed, DER, its own first.
    certificates BLOB NOT NULL,
    PRIMARY KEY (division, slot, epoch, number)
) STRICT, WITHOUT ROWID;
