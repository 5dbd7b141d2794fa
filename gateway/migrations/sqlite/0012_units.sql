-- Codes of the units in whose name a partner handles cases, with blanks between; `*`: all. A partner that could write
-- before files cases as it did; the operator says what it may do beyond that.
ALTER TABLE partner_grant ADD COLUMN units TEXT NOT NULL DEFAULT '';
