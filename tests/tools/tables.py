"""The tables that belong to no entity, as models: what the schema and docs/tables.md are held against."""

from __future__ import annotations

from peewee import (
    AutoField,
    BigAutoField,
    BigIntegerField,
    BooleanField,
    CompositeKey,
    DateField,
    DoubleField,
    IntegerField,
    TextField,
)

from esid.store.model import Table, UtcField


class SyncJob(Table):
    """The ledger: one row for every URL that esid knows of: an id of an entity, a list, or a set (which have the id 1, where
    there is one of them)."""

    entity_type = TextField()
    entity_id = BigIntegerField()
    #: pending (to be fetched), processing (taken by a worker), completed, failed (see dead_letters).
    status = TextField()
    #: Failed attempts since the last success.
    retry_count = IntegerField()
    error = TextField(null=True)
    created_at = UtcField()
    updated_at = UtcField()
    etag = TextField(null=True)
    #: When ESI's answer expires, by our clock; NULL = never (killmails), or there is none.
    expires_at = UtcField(null=True)
    #: The time that the newest answer speaks of, by ESI's clock.
    checked_at = UtcField(null=True)
    #: When an answer last changed a value.
    changed_at = UtcField(null=True)
    #: What the route needs beside the id: a killmail's hash.
    argument = TextField(null=True)
    #: A pending job without a message in the queue is published at this time; NULL = it has one.
    due_at = UtcField(null=True)
    #: When the schedule asks next, of a failed id too; NULL = never by itself (killmails), or it is open.
    next_at = UtcField(null=True)
    #: The same for the bulk routes (characters).
    refresh_at = UtcField(null=True)

    class Meta:
        table_name = "sync_jobs"
        primary_key = CompositeKey("entity_type", "entity_id")


class DeadLetter(Table):
    """Work that is given up, with the reason; kept until a person retries or drops it."""

    id = BigAutoField()
    #: NULL where the message could not be read.
    entity_type = TextField(null=True)
    entity_id = BigIntegerField(null=True)
    reason = TextField()
    message = TextField()
    attempts = IntegerField()
    #: HTTP status and first 200 bytes of the last answer.
    answer_status = IntegerField(null=True)
    answer_sample = TextField(null=True)
    traceback = TextField(null=True)
    #: The message itself, where no id could be read from it.
    body = TextField(null=True)
    first_at = UtcField()
    last_at = UtcField()
    #: Messages about no id of which the same is to be said are one letter, known by a digest of that.
    count = BigIntegerField(default=1)
    likeness = TextField(null=True)

    class Meta:
        table_name = "dead_letters"


class Message(Table):
    """The queue of the embedded default. `ready_at` is the end of a delay, or of a consumer's lease."""

    id = BigAutoField()
    queue = TextField()
    #: Higher first.
    priority = IntegerField()
    #: Seconds since the epoch by the database's clock.
    ready_at = DoubleField()
    #: Who holds the lease; NULL = nobody.
    owner = TextField(null=True)
    deliveries = IntegerField()
    body = TextField()

    class Meta:
        table_name = "messages"


class Unbatchable(Table):
    """Ids that make ESI refuse a whole batch; for three weeks they are put into none."""

    entity_type = TextField()
    entity_id = BigIntegerField()
    created_at = UtcField()

    class Meta:
        table_name = "unbatchable"
        primary_key = CompositeKey("entity_type", "entity_id")


class UnknownField(Table):
    """Fields of answers that esid does not know, counted by name."""

    entity_type = TextField()
    field = TextField()
    count = BigIntegerField()
    first_at = UtcField()
    last_at = UtcField()

    class Meta:
        table_name = "unknown_fields"
        primary_key = CompositeKey("entity_type", "field")


class EgressMember(Table):
    """Daemons that share one budget, and what each holds of it."""

    egress = TextField()
    member = TextField()
    state = TextField()

    class Meta:
        table_name = "egress_members"
        primary_key = CompositeKey("egress", "member")


class Memo(Table):
    """Small facts of this installation, by name."""

    name = TextField(primary_key=True)
    value = TextField()

    class Meta:
        table_name = "memos"


class Recovery(Table):
    """Ids that were in the hands of a worker when it died, counted apart from failures; forgotten after 72 hours."""

    entity_type = TextField()
    entity_id = BigIntegerField()
    #: Deaths of workers that held it; 0 = its message came again, and its worker may have died.
    count = IntegerField()
    #: Most ids of a message that it may be in from now on.
    ids_per_message = IntegerField()
    #: Nobody takes it before this time.
    again_at = UtcField()
    first_at = UtcField()
    last_at = UtcField()

    class Meta:
        table_name = "recoveries"
        primary_key = CompositeKey("entity_type", "entity_id")


class Tick(Table):
    """Ticks of the schedule that have run, each once; `clean_up` deletes those 7 days old, but the newest of each job."""

    name = TextField()
    #: When it was to run, and when it did.
    due_at = UtcField()
    ran_at = UtcField()
    #: NULL = it runs.
    ended_at = UtcField(null=True)
    #: done, failed or interrupted.
    result = TextField(null=True)
    #: What it did, or its error.
    words = TextField(null=True)
    #: Host, pid and start of the process that runs it.
    owner = TextField(null=True)

    class Meta:
        table_name = "ticks"
        primary_key = CompositeKey("name", "due_at")


class FeedCursor(Table):
    """Where each feed stands, and who reads it. `leased_until` is in seconds since the epoch by the database's clock."""

    name = TextField(primary_key=True)
    #: What is to be read next, in the feed's own words; NULL = it has never been read.
    position = TextField(null=True)
    moved_at = UtcField(null=True)
    #: Which process reads it; NULL = nobody.
    owner = TextField(null=True)
    leased_until = DoubleField()

    class Meta:
        table_name = "feed_cursors"


class ArchiveImport(Table):
    """How far each day's archive of each source (`everef`, `zkillboard`) was read. Moves in the transaction of the rows that
    it tells of. Another `fingerprint` is another archive, read from its beginning."""

    source = TextField()
    day = DateField()
    #: ETag, or size and time of the file: another one is another archive, and is read from its beginning.
    fingerprint = TextField()
    #: Members read so far, killmails among them that stand in the tables, and members that are none.
    members = BigIntegerField()
    killmails = BigIntegerField()
    refused = BigIntegerField()
    finished = BooleanField()
    updated_at = UtcField()

    class Meta:
        table_name = "archive_imports"
        primary_key = CompositeKey("source", "day")


class KillmailDay(Table):
    """How many killmails zKillboard knows of a day, and what the last comparison with the tables found."""

    day = DateField(primary_key=True)
    expected = BigIntegerField()
    #: NULL = not compared yet.
    have = BigIntegerField(null=True)
    missing = BigIntegerField(null=True)
    checked_at = UtcField()

    class Meta:
        table_name = "killmail_days"


class Process(Table):
    """Processes of all daemons: each says every 5 s that it lives and what it does; `clean_up` deletes those an hour old."""

    #: Host and pid.
    name = TextField(primary_key=True)
    #: worker, scheduler, feed or web.
    kind = TextField()
    beat_at = UtcField()
    #: JSON: see `processes` in docs/status.md.
    state = TextField()

    class Meta:
        table_name = "processes"


class Counter(Table):
    """Counts that survive the processes that count; /metrics shows them."""

    name = TextField(primary_key=True)
    value = DoubleField()

    class Meta:
        table_name = "counters"


class Sample(Table):
    """The state once a minute, for the rates and plots of the last hour; `clean_up` deletes those 25 hours old."""

    taken_at = UtcField(primary_key=True)
    #: JSON.
    state = TextField()

    class Meta:
        table_name = "samples"


class Set(Table):
    """Which version of each whole set is stored."""

    entity = TextField()
    #: What it is a set of: an id; 1 where there is one of it.
    scope = BigIntegerField()
    #: The Last-Modified of its first page.
    generation = UtcField()
    pages = BigIntegerField()
    rows = BigIntegerField()
    #: The first later version that is not believed, since most of the set is gone in it.
    suspect_generation = UtcField(null=True)
    suspect_rows = BigIntegerField(null=True)
    read_at = UtcField()

    class Meta:
        table_name = "sets"
        primary_key = CompositeKey("entity", "scope")


class SchemaMigration(Table):
    """Which migrations have run."""

    number = AutoField()
    name = TextField()
    applied_at = UtcField()

    class Meta:
        table_name = "schema_migrations"


TABLES = (
    SyncJob,
    DeadLetter,
    Message,
    Unbatchable,
    UnknownField,
    EgressMember,
    Memo,
    Recovery,
    Tick,
    FeedCursor,
    ArchiveImport,
    KillmailDay,
    Process,
    Counter,
    Sample,
    Set,
    SchemaMigration,
)
