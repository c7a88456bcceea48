-- Killmails from outside ESI: where each feed stands, which archives were read, how many killmails each day has.
CREATE TABLE feed_cursors (
    name TEXT PRIMARY KEY,
    position TEXT,
    moved_at TIMESTAMPTZ,
    owner TEXT,
    leased_until DOUBLE PRECISION NOT NULL
);

CREATE TABLE archive_imports (
    source TEXT NOT NULL,
    day DATE NOT NULL,
    fingerprint TEXT NOT NULL,
    members BIGINT NOT NULL,
    killmails BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    finished BOOLEAN NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (source, day)
) {clustered};

CREATE TABLE killmail_days (
    day DATE PRIMARY KEY,
    expected BIGINT NOT NULL,
    have BIGINT,
    missing BIGINT,
    checked_at TIMESTAMPTZ NOT NULL
) {clustered};

-- For a killmail this is the time that zKillboard's values speak of; ESI says nothing of them.
UPDATE sync_jobs SET checked_at = NULL WHERE entity_type = 'killmail' AND checked_at IS NOT NULL;
