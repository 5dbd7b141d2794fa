-- How often a partner may call, such as `50/s`, `600/min` or `2000/h`. Empty: as often as it likes.
ALTER TABLE partner_grant ADD COLUMN rate TEXT NOT NULL DEFAULT '';
