-- When the store was put back from a backup, until its node has begun as another: see engine/failover.rs.
ALTER TABLE shared ADD COLUMN put_back_ms INTEGER;
-- Which database of which server the store was in last, as a hash: another one means that a dump was put back there.
-- NULL: not known, as always in SQLite.
ALTER TABLE shared ADD COLUMN place INTEGER;

-- The last time that the store began empty or was put back, and was filled again by its peers. One row at most.
CREATE TABLE recovery (
    -- 1 it began empty, 2 it was put back or copied.
    cause INTEGER NOT NULL,
    begun_ms INTEGER NOT NULL,
    -- NULL: it goes on.
    ended_ms INTEGER,
    -- The parent has not given everything yet.
    from_parent INTEGER NOT NULL,
    -- What cannot come back is counted.
    counted INTEGER NOT NULL
) STRICT;

-- Of records of this node, how many lack a field that no other node may hold.
CREATE TABLE recovery_loss (
    kind INTEGER NOT NULL,
    field INTEGER NOT NULL,
    records INTEGER NOT NULL,
    PRIMARY KEY (kind, field)
) STRICT, WITHOUT ROWID;
