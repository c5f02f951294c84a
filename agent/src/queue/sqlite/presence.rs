//! How a death is seen at once: each session holds a lock on a file of its own, which the system
//! takes away with the process, however that ends.
//!
//! The files stand in the directory `FILE-sessions` beside the database. One is made and locked in
//! the transaction that writes its session's row, so whoever sees the row finds the lock held; and
//! since writing transactions come one at a time, nobody removes a file that somebody is making.
//!
//! A process that is stopped keeps its lock, and where files can't be locked there is none: there
//! the silence of its beat tells (see `lease`). The names are never used again, also not by a
//! database that takes the place of another.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, read_dir, remove_file};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::database::private;

/// Where the locks of a database's sessions are.
#[derive(Debug)]
pub(super) struct Presence {
    folder: PathBuf,
}

/// A session as its row has it: its number, and when it began.
pub(super) type Name = (i64, i64);

/// The lock of an open session. Dropped, it is free: as if the process had died.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    /// `None` where no file can be locked.
    _file: Option<File>,
}

impl Presence {
    /// Beside a database that is there.
    pub(super) fn beside(database: &Path) -> Self {
        // However it is spelt: all its processes have to meet.
        let database = database
            .canonicalize()
            .unwrap_or_else(|_| database.to_owned());
        let mut folder = database.into_os_string();
        folder.push("-sessions");
        Self {
            folder: folder.into(),
        }
    }

    /// Locks a session's file. In the transaction that writes its row.
    pub(super) fn lock(&self, name: Name) -> Lock {
        let path = self.path(name);
        let file = self.locked(&path).map_err(|error| {
            warn!(
                path = %path.display(),
                %error,
                "this file can't be locked: if this worker dies, others need up to 21 s to see it"
            );
        });
        Lock {
            path,
            _file: file.ok(),
        }
    }

    fn locked(&self, path: &Path) -> io::Result<File> {
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let file = private().create_new(true).open(path)?;
        file.try_lock()?;
        Ok(file)
    }

    /// Whether a session's process has certainly ended.
    pub(super) fn is_gone(&self, name: Name) -> bool {
        // Shared, so that those who look at the same time don't take each other for the owner.
        File::open(self.path(name)).is_ok_and(|file| file.try_lock_shared().is_ok())
    }

    /// Takes away the file of a session whose row is gone.
    pub(super) fn forget(&self, name: Name) {
        // Left behind, it is swept away one day.
        let _ = remove_file(self.path(name));
    }

    /// Takes away what dead processes left behind. In a transaction that may write; `rows` are all
    /// the sessions there are.
    pub(super) fn sweep(&self, rows: &HashSet<Name>) {
        let files = read_dir(&self.folder).into_iter().flatten().flatten();
        for file in files {
            let name = file.file_name().to_str().and_then(parse);
            if let Some(name) = name.filter(|name| !rows.contains(name))
                && self.is_gone(name)
            {
                self.forget(name);
            }
        }
    }

    fn path(&self, (session, opened_at): Name) -> PathBuf {
        self.folder.join(format!("{session}-{opened_at}"))
    }
}

impl Lock {
    /// Ends in good order, and leaves no file behind.
    pub(super) fn remove(self) {
        let _ = remove_file(&self.path);
    }
}

fn parse(name: &str) -> Option<Name> {
    let (session, opened_at) = name.split_once('-')?;
    Some((session.parse().ok()?, opened_at.parse().ok()?))
}
