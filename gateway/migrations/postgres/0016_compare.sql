-- See sqlite/0016_compare.sql.
CREATE TABLE link_proof (
    peer bigint PRIMARY KEY,
    state bigint NOT NULL,
    records bigint NOT NULL,
    since_ms bigint NOT NULL,
    compared_ms bigint,
    equal_ms bigint,
    left_out bigint NOT NULL,
    refused bigint NOT NULL
);
