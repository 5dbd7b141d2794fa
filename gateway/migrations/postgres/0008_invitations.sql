-- Invitations of new nodes. Of a code only the hash of its secret is kept: whoever reads this table can let nobody in.
CREATE TABLE invitation (
    secret_hash bytea PRIMARY KEY,
    -- For operators; says nothing about the code.
    id bigint NOT NULL UNIQUE,
    division bigint NOT NULL,
    -- DNS names and addresses, with blanks between them.
    hosts text COLLATE "C" NOT NULL,
    created_ms bigint NOT NULL,
    created_by text COLLATE "C" NOT NULL,
    expire_ms bigint NOT NULL,
    -- 0 open, 1 used, 2 taken back.
    fate bigint NOT NULL,
    -- When it was used or taken back; 0: neither.
    fate_ms bigint NOT NULL,
    -- Used: hash of the new node's public key, and what it was given, so that it can be given again. Else empty.
    key_hash bytea NOT NULL,
    answer bytea NOT NULL
);
CREATE INDEX invitation_by_time ON invitation (created_ms, id);
