-- When the store last took a new epoch, because it had been put back or copied: whom it meets for the first time since may
-- have met it before. NULL: never.
ALTER TABLE shared ADD COLUMN renewed_ms INTEGER;
