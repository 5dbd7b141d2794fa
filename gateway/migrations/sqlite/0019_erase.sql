-- What an erasure purged here, and which copies of before it were made, are read from the audit log: few entries of many.
CREATE INDEX audit_erased ON audit (time_ms) WHERE event = 'erased';
CREATE INDEX audit_copies ON audit (time_ms, slot, number)
    WHERE event = 'bundle_made' OR event = 'store_put_back' OR event = 'store_rebuilt'
        OR event = 'command' AND line LIKE '%"BackupService.CreateBackup"%';
