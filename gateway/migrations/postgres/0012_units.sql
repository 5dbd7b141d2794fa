-- See sqlite/0012_units.sql.
ALTER TABLE partner_grant ADD COLUMN units text COLLATE "C" NOT NULL DEFAULT '';
