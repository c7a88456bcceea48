-- Workers that died with an id in hand, and the ticks of the schedule that have been run.
CREATE TABLE recoveries (
    entity_type TEXT NOT NULL,
    entity_id BIGINT NOT NULL,
    count INTEGER NOT NULL,
    ids_per_message INTEGER NOT NULL,
    again_at TIMESTAMPTZ NOT NULL,
    first_at TIMESTAMPTZ NOT NULL,
    last_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (entity_type, entity_id)
) {clustered};

CREATE TABLE ticks (
    name TEXT NOT NULL,
    due_at TIMESTAMPTZ NOT NULL,
    ran_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (name, due_at)
) {clustered};
