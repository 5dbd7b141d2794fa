-- Durable feeds for partners. Each is a peer of its own: what it is owed stands in the outbox under its number.
CREATE TABLE subscription (
    peer INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- A partner's name; empty: the operators'.
    owner TEXT NOT NULL,
    -- Numbers of kinds, separated by commas; empty: all.
    kinds TEXT NOT NULL,
    scope INTEGER NOT NULL,
    personal INTEGER NOT NULL,
    -- Hash over what its reader was allowed when it was last owed everything.
    filled_for INTEGER NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;
