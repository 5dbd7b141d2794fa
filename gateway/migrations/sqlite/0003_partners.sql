-- What partners may see and write. A partner without a row may call nothing.
CREATE TABLE partner_grant (
    -- As in its certificate.
    partner TEXT PRIMARY KEY,
    -- The division whose records, and those of the divisions inside it, it may see.
    scope INTEGER NOT NULL,
    -- One bit for each kind, by the kind's number; all bits: every kind, those of later programs too.
    kinds INTEGER NOT NULL,
    -- 1 aggregates only, 2 read, 3 write.
    level INTEGER NOT NULL,
    -- 1: fields that say something about a person, too.
    personal INTEGER NOT NULL,
    granted_ms INTEGER NOT NULL,
    -- Who granted it: an operator's name, or that it came over the local socket.
    granted_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- When this node took in the last change, Unix milliseconds: each transaction has a later moment than the one before.
ALTER TABLE record ADD COLUMN updated_ms INTEGER NOT NULL DEFAULT 0;
CREATE INDEX record_updated ON record (kind, updated_ms, key);

-- What records are found by beside their names: see facet.rs. Cameras, the bulk of all records, have a row only where
-- they carry a pole's code or a number of another system.
CREATE TABLE facet (
    -- The kind and which of its facets.
    facet INTEGER NOT NULL,
    -- A number, a code, or the hash of a text.
    value INTEGER NOT NULL,
    home INTEGER NOT NULL,
    key INTEGER NOT NULL,
    county INTEGER NOT NULL,
    PRIMARY KEY (facet, value, home, key, county)
) STRICT, WITHOUT ROWID;
