-- The catalog: what this host knows of its pool, volumes, snapshots, mounts and backups. Version 3 (PRAGMA user_version).
-- Sizes are bytes, times milliseconds since 1970, UUIDs their canonical text.

-- The one pool of this root.
CREATE TABLE pool (
    id                 INTEGER PRIMARY KEY CHECK (id = 1),
    uuid               TEXT    NOT NULL,
    name               TEXT    NOT NULL,              -- of the dm device
    state              TEXT    NOT NULL CHECK (state IN ('creating', 'ready')),
    data_device        TEXT    NOT NULL,
    data_size          INTEGER NOT NULL,
    -- 0: its data device has no label (volumes/pool_label.h), since the pool was Rancher Convoy's. While such a pool's state is
    -- creating, it is being taken over.
    labelled           INTEGER NOT NULL DEFAULT 1,
    metadata_device    TEXT    NOT NULL,
    metadata_size      INTEGER NOT NULL,
    block_sectors      INTEGER NOT NULL,
    -- The pool's transaction id after the last change that is finished. It starts at a random number, which tells this pool
    -- from any other whatever its devices are called.
    transaction_id     INTEGER NOT NULL,
    next_thin_id       INTEGER NOT NULL,
    default_size       INTEGER NOT NULL,
    default_filesystem TEXT    NOT NULL,
    low_watermark      INTEGER NOT NULL,              -- percent
    when_full          TEXT    NOT NULL CHECK (when_full IN ('error', 'queue')),
    metadata_snapshot  INTEGER NOT NULL               -- block of the one that was taken last; 0: none was
) STRICT;

-- Every thin device of the pool: volumes and snapshots share one space of names and one of thin ids.
CREATE TABLE device (
    uuid    TEXT    PRIMARY KEY,
    name    TEXT    NOT NULL UNIQUE,
    kind    TEXT    NOT NULL CHECK (kind IN ('volume', 'snapshot')),
    -- creating: not yet usable; a restart removes it. deleting: on its way out; a restart finishes that. Both are hidden from
    -- users, but hold their name and thin id.
    state   TEXT    NOT NULL CHECK (state IN ('creating', 'ready', 'deleting')),
    thin_id INTEGER NOT NULL UNIQUE,
    size    INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE volume (
    uuid       TEXT PRIMARY KEY REFERENCES device (uuid) ON DELETE CASCADE,
    filesystem TEXT NOT NULL,
    lineage    TEXT NOT NULL,  -- the volume whose line of backups this one continues; its own UUID if it wasn't restored
    mountpoint TEXT,           -- where it is, or is to be, mounted
    -- As whoever created it gave them: more words for mkfs, and what is mounted with.
    mkfs_options  TEXT NOT NULL,
    mount_options TEXT NOT NULL,
    backup        TEXT         -- the one that it was restored from
) STRICT;

CREATE TABLE snapshot (
    uuid           TEXT    PRIMARY KEY REFERENCES device (uuid) ON DELETE CASCADE,
    volume         TEXT    NOT NULL REFERENCES volume (uuid),
    -- From the device details in the pool's metadata: a thin id that was reused by others has different ones. creation_time is
    -- learnt when the metadata are first read.
    transaction_id INTEGER NOT NULL,
    creation_time  INTEGER
) STRICT;
CREATE INDEX snapshot_volume ON snapshot (volume);

-- The change of the pool that is under way: from transaction_id to transaction_id + 1.
CREATE TABLE intent (
    id             INTEGER PRIMARY KEY CHECK (id = 1),
    action         TEXT    NOT NULL CHECK (action IN ('create', 'delete')),
    device         TEXT    NOT NULL REFERENCES device (uuid),
    transaction_id INTEGER NOT NULL
) STRICT;

-- Who uses a mounted volume. A container's mount id means nothing after a reboot; the command line's mount is made again.
CREATE TABLE volume_user (
    volume  TEXT NOT NULL REFERENCES volume (uuid) ON DELETE CASCADE,
    kind    TEXT NOT NULL CHECK (kind IN ('command', 'docker')),
    id      TEXT NOT NULL,     -- Docker's mount id; empty for the command line
    boot_id TEXT NOT NULL,     -- /proc/sys/kernel/random/boot_id
    PRIMARY KEY (volume, kind, id)
) STRICT;

-- The store that each destination was last seen to hold.
CREATE TABLE destination (
    url   TEXT PRIMARY KEY,
    store TEXT NOT NULL
) STRICT;

-- Which snapshot is in which store as which backup. Backup ids are UUIDv7, so they sort by time.
CREATE TABLE backup (
    backup   TEXT PRIMARY KEY,
    store    TEXT NOT NULL,
    snapshot TEXT NOT NULL REFERENCES snapshot (uuid) ON DELETE CASCADE
) STRICT;
CREATE INDEX backup_snapshot ON backup (snapshot);
