-- What came of each tick of the schedule, and who runs it; NULL in ended_at = it runs.
ALTER TABLE ticks ADD COLUMN ended_at TIMESTAMPTZ;
ALTER TABLE ticks ADD COLUMN result TEXT;
ALTER TABLE ticks ADD COLUMN words TEXT;
ALTER TABLE ticks ADD COLUMN owner TEXT;
UPDATE ticks SET ended_at = ran_at, result = 'done';
