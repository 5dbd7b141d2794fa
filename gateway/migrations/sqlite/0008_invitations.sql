-- Invitations of new nodes. Of a code only the hash of its secret is kept: whoever reads this table can let nobody in.
CREATE TABLE invitation (
    secret_hash BLOB PRIMARY KEY,
    -- For operators; says nothing about the code.
    id INTEGER NOT NULL UNIQUE,
    division INTEGER NOT NULL,
    -- DNS names and addresses, with blanks between them.
    hosts TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    expire_ms INTEGER NOT NULL,
    -- 0 open, 1 used, 2 taken back.
    fate INTEGER NOT NULL,
    -- When it was used or taken back; 0: neither.
    fate_ms INTEGER NOT NULL,
    -- Used: hash of the new node's public key, and what it was given, so that it can be given again. Else empty.
    key_hash BLOB NOT NULL,
    answer BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX invitation_by_time ON invitation (created_ms, id);
