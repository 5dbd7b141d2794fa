-- See sqlite/0017_bundles.sql.
CREATE TABLE bundle_peer (
    division bigint PRIMARY KEY,
    version bigint NOT NULL,
    public_key bytea,
    key_ms bigint NOT NULL,
    key_chain bytea NOT NULL,
    sent_epoch bigint NOT NULL,
    sent_number bigint NOT NULL,
    sent_random bigint NOT NULL,
    sent_ms bigint NOT NULL,
    sent_through bigint NOT NULL,
    confirmed_number bigint NOT NULL,
    confirmed_ms bigint NOT NULL,
    confirmed_to_ms bigint NOT NULL,
    told bytea NOT NULL,
    past bytea NOT NULL,
    peer_epoch bigint NOT NULL,
    peer_time_ms bigint NOT NULL,
    seen_number bigint NOT NULL,
    seen_random bigint NOT NULL,
    seen_ms bigint NOT NULL,
    one_way bigint NOT NULL,
    restored_epoch bigint NOT NULL,
    clock bigint NOT NULL
);

CREATE TABLE bundle_made (
    division bigint NOT NULL,
    number bigint NOT NULL,
    epoch bigint NOT NULL,
    random bigint NOT NULL,
    made_ms bigint NOT NULL,
    whole bigint NOT NULL,
    records bigint NOT NULL,
    clock bigint NOT NULL,
    PRIMARY KEY (division, number)
);

CREATE TABLE bundle_row (
    division bigint NOT NULL,
    number bigint NOT NULL,
    part bigint NOT NULL,
    seqs bytea NOT NULL,
    PRIMARY KEY (division, number, part)
);

CREATE TABLE bundle_taken (
    division bigint NOT NULL,
    epoch bigint NOT NULL,
    number bigint NOT NULL,
    random bigint NOT NULL,
    previous_epoch bigint NOT NULL,
    previous_number bigint NOT NULL,
    previous_random bigint NOT NULL,
    batches bigint NOT NULL,
    taken_ms bigint NOT NULL,
    refused bigint NOT NULL,
    receipt bigint NOT NULL,
    PRIMARY KEY (division, epoch, number)
);

CREATE TABLE bundle_refusal (
    division bigint NOT NULL,
    epoch bigint NOT NULL,
    number bigint NOT NULL,
    batch bigint NOT NULL,
    refusals bytea NOT NULL,
    PRIMARY KEY (division, epoch, number, batch)
);
