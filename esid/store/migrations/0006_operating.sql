-- What people look at: processes that live and what they do, counts that survive them, a sample of the state each minute.
CREATE TABLE processes (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    beat_at TIMESTAMPTZ NOT NULL,
    state TEXT NOT NULL
);

CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value DOUBLE PRECISION NOT NULL
);

CREATE TABLE samples (
    taken_at TIMESTAMPTZ PRIMARY KEY,
    state TEXT NOT NULL
);
