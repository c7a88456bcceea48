-- {id}, {serial} and {clustered} are replaced by the words of the database (store/migrate.py).
CREATE TABLE alliances (
    id {id},
    name TEXT NOT NULL,
    ticker TEXT NOT NULL,
    date_founded TIMESTAMPTZ NOT NULL,
    creator_corporation_id BIGINT NOT NULL,
    creator_id BIGINT NOT NULL,
    executor_corporation_id BIGINT,
    faction_id BIGINT,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE corporations (
    id {id},
    name TEXT NOT NULL,
    ticker TEXT NOT NULL,
    member_count BIGINT NOT NULL,
    ceo_id BIGINT,
    creator_id BIGINT,
    date_founded TIMESTAMPTZ,
    description TEXT,
    alliance_id BIGINT,
    faction_id BIGINT,
    home_station_id BIGINT,
    shares BIGINT,
    tax_rate DOUBLE PRECISION,
    url TEXT,
    war_eligible BOOLEAN,
    state TEXT,
    type TEXT,
    friendly_fire TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX corporations_alliance_id ON corporations (alliance_id);

CREATE TABLE characters (
    id {id},
    name TEXT,
    corporation_id BIGINT,
    alliance_id BIGINT,
    faction_id BIGINT,
    birthday TIMESTAMPTZ,
    bloodline_id BIGINT,
    race_id BIGINT,
    gender TEXT,
    security_status DOUBLE PRECISION,
    description TEXT,
    title TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX characters_corporation_id ON characters (corporation_id);
CREATE INDEX characters_alliance_id ON characters (alliance_id);

CREATE TABLE killmails (
    id {id},
    hash TEXT NOT NULL,
    killmail_time TIMESTAMPTZ NOT NULL,
    solar_system_id BIGINT NOT NULL,
    moon_id BIGINT,
    war_id BIGINT,
    victim_character_id BIGINT,
    victim_corporation_id BIGINT,
    victim_alliance_id BIGINT,
    victim_faction_id BIGINT,
    victim_ship_type_id BIGINT NOT NULL,
    victim_damage_taken BIGINT NOT NULL,
    victim_position_x DOUBLE PRECISION,
    victim_position_y DOUBLE PRECISION,
    victim_position_z DOUBLE PRECISION,
    attacker_count BIGINT NOT NULL,
    total_value DOUBLE PRECISION,
    destroyed_value DOUBLE PRECISION,
    dropped_value DOUBLE PRECISION,
    fitted_value DOUBLE PRECISION,
    points BIGINT,
    npc BOOLEAN,
    solo BOOLEAN,
    awox BOOLEAN,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX killmails_killmail_time ON killmails (killmail_time);
CREATE INDEX killmails_solar_system_id ON killmails (solar_system_id);
CREATE INDEX killmails_victim_character_id ON killmails (victim_character_id);
CREATE INDEX killmails_victim_corporation_id ON killmails (victim_corporation_id);
CREATE INDEX killmails_victim_alliance_id ON killmails (victim_alliance_id);

CREATE TABLE attackers (
    killmail_id BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    character_id BIGINT,
    corporation_id BIGINT,
    alliance_id BIGINT,
    faction_id BIGINT,
    ship_type_id BIGINT,
    weapon_type_id BIGINT,
    damage_done BIGINT NOT NULL,
    final_blow BOOLEAN NOT NULL,
    security_status DOUBLE PRECISION NOT NULL,
    PRIMARY KEY (killmail_id, seq)
) {clustered};
CREATE INDEX attackers_character_id ON attackers (character_id, killmail_id);
CREATE INDEX attackers_corporation_id ON attackers (corporation_id, killmail_id);
CREATE INDEX attackers_alliance_id ON attackers (alliance_id, killmail_id);

CREATE TABLE killmail_items (
    killmail_id BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    parent_seq BIGINT,
    item_type_id BIGINT NOT NULL,
    flag BIGINT NOT NULL,
    quantity_dropped BIGINT,
    quantity_destroyed BIGINT,
    singleton BIGINT NOT NULL,
    PRIMARY KEY (killmail_id, seq)
) {clustered};

CREATE TABLE sync_jobs (
    entity_type TEXT NOT NULL,
    entity_id BIGINT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'processing', 'completed', 'failed')),
    retry_count INTEGER NOT NULL,
    error TEXT,
    created_at TIMESTAMPTZ NOT NULL,
    updated_at TIMESTAMPTZ NOT NULL,
    etag TEXT,
    expires_at TIMESTAMPTZ,
    checked_at TIMESTAMPTZ,
    changed_at TIMESTAMPTZ,
    argument TEXT,
    due_at TIMESTAMPTZ,
    PRIMARY KEY (entity_type, entity_id)
) {clustered};
CREATE INDEX sync_jobs_status ON sync_jobs (entity_type, status);
CREATE INDEX sync_jobs_open ON sync_jobs (entity_type, updated_at) WHERE status IN ('pending', 'processing');
CREATE INDEX sync_jobs_due_at ON sync_jobs (entity_type, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX sync_jobs_expires_at ON sync_jobs (entity_type, expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX sync_jobs_checked_at ON sync_jobs (entity_type, checked_at) WHERE checked_at IS NOT NULL;

CREATE TABLE dead_letters (
    id {serial},
    entity_type TEXT,
    entity_id BIGINT,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    answer_status INTEGER,
    answer_sample TEXT,
    traceback TEXT,
    body TEXT,
    first_at TIMESTAMPTZ NOT NULL,
    last_at TIMESTAMPTZ NOT NULL
);
CREATE UNIQUE INDEX dead_letters_entity ON dead_letters (entity_type, entity_id);
CREATE INDEX dead_letters_reason ON dead_letters (reason);

CREATE TABLE messages (
    id {serial},
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    ready_at DOUBLE PRECISION NOT NULL,
    owner TEXT,
    deliveries INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX messages_next ON messages (queue, priority DESC, id);
CREATE INDEX messages_owner ON messages (owner) WHERE owner IS NOT NULL;

CREATE TABLE unbatchable (
    entity_type TEXT NOT NULL,
    entity_id BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (entity_type, entity_id)
) {clustered};

CREATE TABLE unknown_fields (
    entity_type TEXT NOT NULL,
    field TEXT NOT NULL,
    count BIGINT NOT NULL,
    first_at TIMESTAMPTZ NOT NULL,
    last_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (entity_type, field)
) {clustered};

CREATE TABLE memos (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
