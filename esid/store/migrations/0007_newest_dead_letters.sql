-- `esid dead list` and the page show the newest.
CREATE INDEX dead_letters_last_at ON dead_letters (last_at, id);
