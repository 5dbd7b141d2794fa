-- Exchange by bundles. Of each peer, by division: what both sides remember of each other (bundle/standing.rs).
CREATE TABLE bundle_peer (
    division INTEGER PRIMARY KEY,
    -- Rises with each change: who stores it decided from the last one.
    version INTEGER NOT NULL,
    -- The key that bundles for it are sealed with, and when it signed that; NULL: not known.
    public_key BLOB,
    key_ms INTEGER NOT NULL,
    -- The certificates that it was signed with.
    key_chain BLOB NOT NULL,
    -- The last bundle begun for it; number 0: none.
    sent_epoch INTEGER NOT NULL,
    sent_number INTEGER NOT NULL,
    sent_random INTEGER NOT NULL,
    sent_ms INTEGER NOT NULL,
    -- The highest number in the outbox then.
    sent_through INTEGER NOT NULL,
    confirmed_number INTEGER NOT NULL,
    confirmed_ms INTEGER NOT NULL,
    confirmed_to_ms INTEGER NOT NULL,
    -- Earlier and present lives of this store that it heard of, and its own earlier ones: 8 bytes each.
    told BLOB NOT NULL,
    past BLOB NOT NULL,
    -- Its store; 0: none was heard of.
    peer_epoch INTEGER NOT NULL,
    peer_time_ms INTEGER NOT NULL,
    -- The highest of its bundles that was taken in; number 0: none.
    seen_number INTEGER NOT NULL,
    seen_random INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL,
    one_way INTEGER NOT NULL,
    restored_epoch INTEGER NOT NULL,
    clock INTEGER NOT NULL
) STRICT;

-- Bundles made here.
CREATE TABLE bundle_made (
    division INTEGER NOT NULL,
    number INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    random INTEGER NOT NULL,
    made_ms INTEGER NOT NULL,
    whole INTEGER NOT NULL,
    records INTEGER NOT NULL,
    clock INTEGER NOT NULL,
    PRIMARY KEY (division, number)
) STRICT, WITHOUT ROWID;

-- The outbox rows that bundles without a receipt hold: packed as the keys of an outbox row.
CREATE TABLE bundle_row (
    division INTEGER NOT NULL,
    number INTEGER NOT NULL,
    part INTEGER NOT NULL,
    seqs BLOB NOT NULL,
    PRIMARY KEY (division, number, part)
) STRICT, WITHOUT ROWID;

-- Bundles of others that were taken in, or begun to be.
CREATE TABLE bundle_taken (
    division INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    random INTEGER NOT NULL,
    -- The one that its sender made before; number 0: none.
    previous_epoch INTEGER NOT NULL,
    previous_number INTEGER NOT NULL,
    previous_random INTEGER NOT NULL,
    batches INTEGER NOT NULL,
    -- 0: not all of it is on disk.
    taken_ms INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    -- 0: its receipt is owed; else the bundle that carried it first, below zero once that has arrived; -2^62: not wanted.
    receipt INTEGER NOT NULL,
    PRIMARY KEY (division, epoch, number)
) STRICT, WITHOUT ROWID;

-- What was refused of them, batch by batch, until the receipt has arrived.
CREATE TABLE bundle_refusal (
    division INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    -- An encoded guantong.v1.BundleReceipt.
    refusals BLOB NOT NULL,
    PRIMARY KEY (division, epoch, number, batch)
) STRICT, WITHOUT ROWID;
