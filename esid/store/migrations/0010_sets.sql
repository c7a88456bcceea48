-- Which version of each whole set is stored. `scope` is what it is a set of (1 where there is one of it).
CREATE TABLE sets (
    entity TEXT NOT NULL,
    scope BIGINT NOT NULL,
    generation TIMESTAMPTZ NOT NULL,
    pages BIGINT NOT NULL,
    rows BIGINT NOT NULL,
    suspect_generation TIMESTAMPTZ,
    suspect_rows BIGINT,
    read_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (entity, scope)
);
