//! Opening the file: its tables, its version, and what else it might turn out to be.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use sparkferry_ports::queue::QueueError;

use super::trouble::{is_busy, queue_error, refused};

/// The version of the tables below, kept in `user_version`.
const VERSION: i64 = 1;

/// Marks the file as ours: `SPKF`, kept in `application_id`.
const APPLICATION_ID: i64 = 0x5350_4b46;

/// How long opening waits for others who open or write.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);

/// How long a transaction waits for others who write.
const TURN_PATIENCE: Duration = Duration::from_secs(2);
/// The same for one that can be tried again and has to end soon.
const SHORT_PATIENCE: Duration = Duration::from_millis(250);

thread_local! {
    /// When this thread's transaction began to wait.
    static TURN_BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The states of a request in the column `state`.
pub(super) mod state {
    /// It waits for a worker.
    pub(in super::super) const READY: i64 = 0;
    /// The worker of the column `session` has it.
    pub(in super::super) const LEASED: i64 = 1;
    /// It has a result.
    pub(in super::super) const DONE: i64 = 2;
}

/// - `workers`: one row for each open worker; `beat` counts up while it lives (see `lease`).
/// - `requests`: one row for each id, in the order of submission; `session` is the worker that has
///   it; the body goes once it is done.
/// - `results`: one row for each request that is done, in the order of finishing.
/// - `events`, `cancels`: what was told lately; `dead`: what could not be read.
///
/// Times are milliseconds since 1970. Numbers are never used again, so that a listener can remember
/// how far it has read.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS workers (
    session INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    beat INTEGER NOT NULL,
    opened_at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS requests (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    connection TEXT NOT NULL,
    id TEXT NOT NULL,
    state INTEGER NOT NULL,
    session INTEGER,
    deliveries INTEGER NOT NULL,
    submitted_at INTEGER NOT NULL,
    body BLOB,
    UNIQUE (namespace, connection, id)
) STRICT;
CREATE INDEX IF NOT EXISTS requests_ready ON requests (namespace, connection, seq) WHERE state = 0;
CREATE INDEX IF NOT EXISTS requests_leased ON requests (session) WHERE state = 1;
CREATE TABLE IF NOT EXISTS results (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    request INTEGER NOT NULL UNIQUE REFERENCES requests (seq),
    message_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    finished_at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    id TEXT NOT NULL,
    told_at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS cancels (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    sent_at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS dead (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    connection TEXT NOT NULL,
    id TEXT NOT NULL,
    reason TEXT NOT NULL,
    error TEXT NOT NULL,
    buried_at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
";

/// The open database of one thread.
pub(super) struct Database {
    /// SQLite's connection.
    pub(super) connection: Connection,
    /// The file, as the setting names it.
    pub(super) path: PathBuf,
    /// Device and inode: a file that is replaced while open would be written to unseen.
    file: (u64, u64),
    data_version: i64,
}

impl Database {
    /// Opens the file, and makes it if there is none: for this user alone, since requests and
    /// results are nobody else's. (SQLite gives the files beside it the same rights.) Blocks for
    /// moments, or for seconds where another program keeps it locked.
    pub(super) fn open(path: &Path) -> Result<Self, QueueError> {
        check_place(path)?;
        // An empty file is an empty database. Where it can't be made, SQLite says why.
        let _ = private().create_new(true).open(path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection =
            Connection::open_with_flags(path, flags).map_err(|e| queue_error(path, &e))?;
        let started = Instant::now();
        // SQLite does not wait its turn for the change to WAL, so we do.
        while let Err(error) = prepare(&mut connection) {
            match error {
                Unfit::Sqlite(error) if is_busy(&error) && started.elapsed() < OPEN_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Unfit::Sqlite(error) => return Err(queue_error(path, &error)),
                Unfit::Refused(why) => return Err(refused(path, why)),
            }
        }
        let file = identity(path).ok_or_else(|| refused(path, "it vanished while opened"))?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            file,
            data_version: 0,
        })
    }

    /// Whether another connection has written since the last time.
    pub(super) fn changed(&mut self) -> rusqlite::Result<bool> {
        let version: i64 = self
            .connection
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        let changed = version != self.data_version;
        self.data_version = version;
        Ok(changed)
    }

    /// Whether the path names another file now, or none.
    pub(super) fn is_replaced(&self) -> bool {
        identity(&self.path) != Some(self.file)
    }

    /// From now on transactions wait for moments only.
    pub(super) fn hurry(&self) -> rusqlite::Result<()> {
        self.connection.busy_timeout(SHORT_PATIENCE)
    }

    /// Begins a transaction that may write, waiting its turn.
    pub(super) fn write(&self) -> rusqlite::Result<Transaction<'_>> {
        Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)
    }
}

/// How files are made that this user alone may read.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether the file could be made, seen without making it: whoever checks may be somebody else than
/// the worker, who could then not write to it.
pub(super) fn check_writable(path: &Path) -> Result<(), QueueError> {
    let probe = directory(path).join(format!(".sparkferry-check-{}", std::process::id()));
    File::create_new(&probe)
        .and_then(|_made| fs::remove_file(&probe))
        .map_err(|error| {
            let directory = directory(path).display();
            refused(
                path,
                format!("nothing can be written to the directory {directory}: {error}"),
            )
        })
}

/// What SQLite itself would only call "unable to open database file".
pub(super) fn check_place(path: &Path) -> Result<(), QueueError> {
    let directory = directory(path);
    if !directory.is_dir() {
        let why = format!(
            "the directory {} does not exist: make it, or change `queue.url`",
            directory.display()
        );
        return Err(refused(path, why));
    }
    if path.is_dir() {
        return Err(refused(
            path,
            "this is a directory: `queue.url` must name a file",
        ));
    }
    Ok(())
}

/// Why a file can't be the queue.
enum Unfit {
    Sqlite(rusqlite::Error),
    Refused(String),
}

impl From<rusqlite::Error> for Unfit {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Writes nothing before the file has proved to be empty or ours.
fn prepare(connection: &mut Connection) -> Result<(), Unfit> {
    connection.busy_handler(Some(wait_turn))?;
    connection.set_prepared_statement_cache_capacity(64);
    if connection.is_readonly("main")? {
        return Err(Unfit::Refused(
            "it can only be read: the file must be writable for this user".into(),
        ));
    }
    // As of one moment: somebody else may be making the tables just now.
    let moment = connection.transaction()?;
    let made = is_made(&moment)?;
    moment.finish()?;
    let journal: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| {
        row.get("journal_mode")
    })?;
    if journal != "wal" {
        return Err(Unfit::Refused(format!(
            "its file system does not support SQLite's WAL (journal mode is {journal}): put it on a \
             local disk"
        )));
    }
    // A commit returns once it is on disk: what was confirmed survives a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    if !made {
        let tx = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        if !is_made(&tx)? {
            tx.execute_batch(TABLES)?;
            tx.pragma_update(None, "application_id", APPLICATION_ID)?;
            tx.pragma_update(None, "user_version", VERSION)?;
        }
        tx.commit()?;
    }
    Ok(())
}

/// Whether the tables are there; not, in an empty file.
fn is_made(connection: &Connection) -> Result<bool, Unfit> {
    let pragma = |name| connection.query_row(name, [], |row| row.get::<_, i64>(0));
    let (application, version) = (
        pragma("PRAGMA application_id")?,
        pragma("PRAGMA user_version")?,
    );
    if application == APPLICATION_ID {
        if version > VERSION {
            return Err(Unfit::Refused(format!(
                "it was made by a newer Sparkferry (tables of version {version}, this program \
                 knows {VERSION}): update this program"
            )));
        }
        return Ok(true);
    }
    let tables = pragma("SELECT count(*) FROM sqlite_schema")?;
    if tables > 0 || application != 0 || version != 0 {
        return Err(Unfit::Refused(
            "this SQLite database belongs to another program: is `queue.url` the right path?"
                .into(),
        ));
    }
    Ok(false)
}

/// Waits a few milliseconds for whoever writes, for [`TURN_PATIENCE`] altogether: by the clock, since
/// on a busy machine each wait takes longer. (SQLite's own handler sleeps up to 100 ms at a time,
/// which a queue would feel.)
fn wait_turn(times: i32) -> bool {
    let now = Instant::now();
    if times == 0 {
        TURN_BEGAN.set(Some(now));
    }
    let millis = fastrand::u64(1..=u64::from(times.unsigned_abs()).clamp(1, 10));
    std::thread::sleep(Duration::from_millis(millis));
    TURN_BEGAN
        .get()
        .is_some_and(|began| now - began < TURN_PATIENCE)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// Now, as the tables have it.
pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
