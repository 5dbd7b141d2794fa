-- See sqlite/0015_limits.sql.
ALTER TABLE partner_grant ADD COLUMN rate text COLLATE "C" NOT NULL DEFAULT '';
