-- Durable feeds for partners. Each is a peer of its own: what it is owed stands in the outbox under its number.
CREATE TABLE subscription (
    peer bigint PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    -- A partner's name; empty: the operators'.
    owner text COLLATE "C" NOT NULL,
    -- Numbers of kinds, separated by commas; empty: all.
    kinds text COLLATE "C" NOT NULL,
    scope bigint NOT NULL,
    personal bigint NOT NULL,
    -- Hash over what its reader was allowed when it was last owed everything.
    filled_for bigint NOT NULL,
    created_ms bigint NOT NULL
);
