-- See sqlite/0009_audit.sql.
CREATE TABLE audit (
    slot bigint NOT NULL,
    number bigint NOT NULL,
    time_ms bigint NOT NULL,
    event text COLLATE "C" NOT NULL,
    line text COLLATE "C" NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (slot, number)
);

CREATE TABLE audit_checkpoint (
    division bigint NOT NULL,
    slot bigint NOT NULL,
    epoch bigint NOT NULL,
    number bigint NOT NULL,
    hash bytea NOT NULL,
    time_ms bigint NOT NULL,
    kept_ms bigint NOT NULL,
    signature bytea NOT NULL,
    certificates bytea NOT NULL,
    PRIMARY KEY (division, slot, epoch, number)
);
