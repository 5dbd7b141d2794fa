-- What partners may see and write. A partner without a row may call nothing.
CREATE TABLE partner_grant (
    -- As in its certificate.
    partner text COLLATE "C" PRIMARY KEY,
    -- The division whose records, and those of the divisions inside it, it may see.
    scope bigint NOT NULL,
    -- One bit for each kind, by the kind's number; all bits: every kind, those of later programs too.
    kinds bigint NOT NULL,
    -- 1 aggregates only, 2 read, 3 write.
    level bigint NOT NULL,
    -- 1: fields that say something about a person, too.
    personal bigint NOT NULL,
    granted_ms bigint NOT NULL,
    -- Who granted it: an operator's name, or that it came over the local socket.
    granted_by text COLLATE "C" NOT NULL
);
