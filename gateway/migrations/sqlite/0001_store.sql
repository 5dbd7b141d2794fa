-- The store of one node. All times are Unix milliseconds, all divisions 12-digit numbers, and 64 random bits are kept
-- as signed integers with the same bits. Tables keyed by record carry its home county, so that on a distributed
-- database they can be spread by it. Every index costs about 4 CPU seconds per million records and tier: add none
-- without a measurement.

-- A row for each process that writes to the store; SQLite has one.
CREATE TABLE node (
    slot INTEGER PRIMARY KEY,
    -- The node's own division.
    division INTEGER NOT NULL,
    -- Random; a new one after a restore.
    epoch INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    -- Number of the last transaction.
    revision INTEGER NOT NULL,
    -- How many records there are.
    records INTEGER NOT NULL,
    -- Numbers of records given out so far, ahead of use.
    sequence INTEGER NOT NULL,
    -- Of the rules by which sums and conflicts were judged; NULL: nothing was judged yet.
    schema_fingerprint BLOB
) STRICT;

CREATE TABLE record (
    -- The first six digits of the county, 7 bits for the slot and 36 for a number, so that no two processes give out
    -- the same one, and a key alone says where its record is.
    key INTEGER PRIMARY KEY,
    county INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    home INTEGER NOT NULL,
    id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    -- An encoded guantong.v1.RecordState.
    state BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX record_name ON record (county, kind, home, id);

-- Divisions beside the home that a record was handed to.
CREATE TABLE audience (
    division INTEGER NOT NULL,
    county INTEGER NOT NULL,
    key INTEGER NOT NULL,
    PRIMARY KEY (division, county, key)
) STRICT, WITHOUT ROWID;

-- Fields where values stand side by side, in the order of the records' names.
CREATE TABLE conflict (
    county INTEGER NOT NULL,
    home INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    id TEXT NOT NULL,
    field INTEGER NOT NULL,
    key INTEGER NOT NULL,
    PRIMARY KEY (county, home, kind, id, field)
) STRICT, WITHOUT ROWID;

-- Conflicts that were settled.
CREATE TABLE resolution (
    id INTEGER PRIMARY KEY,
    county INTEGER NOT NULL,
    key INTEGER NOT NULL,
    field INTEGER NOT NULL,
    before BLOB NOT NULL,
    after BLOB NOT NULL,
    resolved_ms INTEGER NOT NULL
) STRICT;

-- Records whose fields are purged once nothing of them is owed below.
CREATE TABLE purge (
    key INTEGER PRIMARY KEY
) STRICT;

-- What peers are owed: a row holds the keys of a group of records. A number is never used twice, or a late receipt
-- would delete what it was not given for.
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    peer INTEGER NOT NULL,
    -- 1 urgent, 2 normal, 3 bulk.
    lane INTEGER NOT NULL,
    traceparent TEXT,
    fresh INTEGER NOT NULL,
    count INTEGER NOT NULL,
    written_ms INTEGER NOT NULL,
    -- Ascending, each as the difference from the one before, as varints.
    keys BLOB NOT NULL
) STRICT;
CREATE INDEX outbox_lane ON outbox (peer, lane, seq);

-- How much each peer is owed, so that nothing need be counted.
CREATE TABLE outbox_total (
    peer INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    -- Keys in the outbox, those that stand in it several times included; partial sums, added when they are read.
    count INTEGER NOT NULL,
    -- The least that `count` has been since duplicates were looked for: far beyond twice that, they are again.
    least INTEGER NOT NULL,
    PRIMARY KEY (peer, lane, slot)
) STRICT, WITHOUT ROWID;

-- What peers refused.
CREATE TABLE quarantine (
    peer INTEGER NOT NULL,
    key INTEGER NOT NULL,
    -- 0: the whole record.
    field INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    reason INTEGER NOT NULL,
    detail TEXT NOT NULL,
    -- The newest outbox number when it was refused: only what is delivered under a later one says something new.
    seq INTEGER NOT NULL,
    refused_ms INTEGER NOT NULL,
    retry_ms INTEGER,
    PRIMARY KEY (peer, key, field)
) STRICT, WITHOUT ROWID;
CREATE INDEX quarantine_retry ON quarantine (peer, retry_ms) WHERE retry_ms IS NOT NULL;

CREATE TABLE peer (
    peer INTEGER PRIMARY KEY,
    -- 1 parent, 2 child, 3 partner.
    role INTEGER NOT NULL,
    division INTEGER NOT NULL,
    newest_counter INTEGER,
    newest_random INTEGER,
    previous_counter INTEGER,
    previous_random INTEGER,
    parent_restored INTEGER NOT NULL,
    token_counter INTEGER,
    token_random INTEGER,
    clock_at_token INTEGER NOT NULL,
    clock_before_token INTEGER NOT NULL,
    -- When the store was first opened since it last greeted the peer.
    opened_revision INTEGER,
    epoch INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    recovering_to INTEGER
) STRICT;
-- A division is a peer once in each role; a partner may have several subscriptions.
CREATE UNIQUE INDEX peer_link ON peer (role, division) WHERE role < 3;

-- Whom the store writes as.
CREATE TABLE writer (
    division INTEGER NOT NULL,
    id INTEGER NOT NULL,
    -- Empty: local writes. Otherwise the name of an import source.
    purpose TEXT NOT NULL,
    -- The last stamp given out.
    clock INTEGER NOT NULL,
    current INTEGER NOT NULL,
    -- Whose writer it is: one register is never written by two at once.
    slot INTEGER NOT NULL,
    PRIMARY KEY (division, id)
) STRICT, WITHOUT ROWID;

-- Sums over records, for each division that encloses their homes.
CREATE TABLE tally (
    division INTEGER NOT NULL,
    measure TEXT NOT NULL,
    class TEXT NOT NULL,
    -- Partial sums are added when they are read.
    slot INTEGER NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (division, measure, class, slot)
) STRICT, WITHOUT ROWID;

-- Ledgers that were imported.
CREATE TABLE source (
    source INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    kind INTEGER NOT NULL,
    -- Number of the last import.
    generation INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX source_name ON source (name, kind);

-- What each row of a ledger brought last.
CREATE TABLE import_row (
    source INTEGER NOT NULL,
    row TEXT NOT NULL,
    key INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    -- For each field its number as a varint and the hash of its value, 8 bytes, little endian.
    field_hashes BLOB NOT NULL,
    PRIMARY KEY (source, row)
) STRICT, WITHOUT ROWID;

-- Rows that wait until their division is known.
CREATE TABLE held (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    source INTEGER NOT NULL,
    row_key TEXT NOT NULL,
    division INTEGER NOT NULL,
    -- An encoded guantong.v1.ImportRow.
    row BLOB NOT NULL,
    reason TEXT NOT NULL,
    held_ms INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX held_row ON held (source, row_key);

-- Answers to requests that may be repeated; the oldest are forgotten.
CREATE TABLE request (
    id INTEGER PRIMARY KEY,
    request_id TEXT NOT NULL UNIQUE,
    content INTEGER NOT NULL,
    key INTEGER NOT NULL,
    done_ms INTEGER NOT NULL
) STRICT;
