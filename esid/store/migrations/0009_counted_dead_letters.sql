-- Letters about no id that say the same are one, which says how often; `likeness` is a digest of what makes them the same.
ALTER TABLE dead_letters ADD COLUMN count BIGINT NOT NULL DEFAULT 1;
ALTER TABLE dead_letters ADD COLUMN likeness TEXT;
CREATE UNIQUE INDEX dead_letters_likeness ON dead_letters (likeness);
