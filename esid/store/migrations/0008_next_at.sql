-- expires_at is the expiry of ESI's answer and nothing else; when the schedule asks next stands in columns of their own:
-- next_at for an id's own route (of a failed id: when it is asked again), refresh_at for the bulk routes. Both are NULL while
-- a job is open.
ALTER TABLE sync_jobs ADD COLUMN next_at TIMESTAMPTZ;
ALTER TABLE sync_jobs ADD COLUMN refresh_at TIMESTAMPTZ;
UPDATE sync_jobs SET next_at = expires_at WHERE status = 'completed';
UPDATE sync_jobs SET next_at = COALESCE(expires_at, updated_at), expires_at = NULL WHERE status = 'failed';
UPDATE sync_jobs SET refresh_at = checked_at WHERE status = 'completed' AND entity_type = 'character';
DROP INDEX sync_jobs_expires_at;
CREATE INDEX sync_jobs_next_at ON sync_jobs (entity_type, next_at) WHERE next_at IS NOT NULL;
CREATE INDEX sync_jobs_refresh_at ON sync_jobs (entity_type, refresh_at) WHERE refresh_at IS NOT NULL;
