-- Running checksums of what the two ends of each link share: see gateway/src/proof.rs. A row holds the sums of all fields
-- of the records of one home and kind; home and county 0: of all homes together. What one gateway slot adds is a row of
-- its own; they are added when they are read. There are as many rows as peers, homes and kinds, however many records.
CREATE TABLE link_sum (
    peer INTEGER NOT NULL,
    county INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    home INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    -- For each field its number as a varint and the sum, 16 bytes, little endian; ascending, none 0.
    sums BLOB NOT NULL,
    PRIMARY KEY (peer, county, kind, home, slot)
) STRICT, WITHOUT ROWID;

-- The peer's sums hold the records up to this number; the greatest number: all.
ALTER TABLE peer ADD COLUMN summed_through INTEGER NOT NULL DEFAULT 0;
