//! The files of a store: their names, who writes to them, and which of them have to go.
//!
//! A file's name begins with the time at which it was opened, so that names sort by age. Its writer holds a lock on it:
//! a file without one is closed, whether its writer ended well or not.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Limits, MAX_LINE_BYTES, timestamp};
use crate::clock;

const EXTENSION: &str = "jsonl";

/// Says since when lines are kept.
const KEPT_FILE: &str = "kept.json";

/// Says up to when lines were deleted.
const EXPIRED_FILE: &str = "expired.json";

/// Held while deleting, so that two processes do not overwrite each other's [`EXPIRED_FILE`].
const SWEEP_LOCK: &str = "sweep.lock";

/// A file of lines.
pub(super) struct StoredFile {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) modified: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    since: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Expired {
    before: Timestamp,
}

/// All files, oldest first; none when there is no directory.
pub(super) fn list(dir: &Path) -> io::Result<Vec<StoredFile>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        match fs::metadata(&path) {
            Ok(meta) => {
                let modified = timestamp(meta.modified()?);
                files.push(StoredFile { path, bytes: meta.len(), modified });
            }
            // Another process swept it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Opens a new file for this process and locks it.
pub(super) fn create(dir: &Path, now: Timestamp) -> io::Result<File> {
    let id = clock::uuid4().simple().to_string();
    let name = format!("{:015}-{}-{}.{EXTENSION}", now.as_millisecond(), std::process::id(), &id[..8]);
    let path = dir.join(name);
    let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

/// Whether a living process writes to a file: its last line may be half there.
pub(super) fn is_being_written(file: &File) -> io::Result<bool> {
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Since when lines are kept; none when there is no store.
pub(super) fn kept_since(dir: &Path) -> io::Result<Option<Timestamp>> {
    let kept: Option<Kept> = read_mark(dir, KEPT_FILE)?;
    Ok(kept.map(|kept| kept.since))
}

/// Remembers that lines are kept from `now` on, unless it is known since when. In a store that was made before there was such
/// a mark they are kept since its oldest file was begun.
pub(super) fn mark_kept_since(dir: &Path, now: Timestamp) -> io::Result<()> {
    if kept_since(dir)?.is_some() {
        return Ok(());
    }
    let files = list(dir)?;
    let since = files.first().and_then(|oldest| begun(&oldest.path)).map_or(now, |begun| begun.min(now));
    write_mark(dir, KEPT_FILE, &Kept { since })
}

/// Up to when lines were deleted.
pub(super) fn expired_before(dir: &Path) -> io::Result<Option<Timestamp>> {
    let expired: Option<Expired> = read_mark(dir, EXPIRED_FILE)?;
    Ok(expired.map(|expired| expired.before))
}

fn read_mark<T: DeserializeOwned>(dir: &Path, name: &str) -> io::Result<Option<T>> {
    match fs::read(dir.join(name)) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whole or not at all, whatever happens meanwhile. Each writer has a file of its own until it is in its place.
fn write_mark(dir: &Path, name: &str, mark: &impl Serialize) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.{}.new", clock::uuid4().simple()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec(mark)?)?;
    file.sync_all()?;
    fs::rename(temporary, dir.join(name))
}

/// When a file was begun, as its name says.
fn begun(path: &Path) -> Option<Timestamp> {
    let millis = path.file_name()?.to_str()?.split('-').next()?.parse().ok()?;
    Timestamp::from_millisecond(millis).ok()
}

/// Deletes what is over `limits`.
pub(super) fn sweep(dir: &Path, limits: &Limits, now: Timestamp) -> io::Result<()> {
    let lock = match OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join(SWEEP_LOCK)) {
        Ok(lock) => lock,
        // There is no store.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => {}
        // Somebody else sweeps already.
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let files = list(dir)?;
    let oldest_kept = now.checked_sub(limits.age).unwrap_or(Timestamp::MIN);
    let mut total: u64 = files.iter().map(|file| file.bytes).sum();
    for file in &files {
        let over = total > limits.store_bytes || file.modified < oldest_kept;
        if over && expire(dir, file)? {
            total = total.saturating_sub(file.bytes);
        }
    }
    Ok(())
}

/// Deletes one file unless it is being written to. The mark comes first: after a crash between the two it claims a
/// gap that is not there, which is better than the reverse.
fn expire(dir: &Path, file: &StoredFile) -> io::Result<bool> {
    let open = match File::open(&file.path) {
        Ok(open) => open,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    match open.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    if file.bytes > 0 {
        mark_expired(dir, last_time(&open, file)?)?;
    }
    fs::remove_file(&file.path)?;
    Ok(true)
}

fn mark_expired(dir: &Path, before: Timestamp) -> io::Result<()> {
    // One that can not be read is written anew: it said less.
    if expired_before(dir).is_ok_and(|known| known.is_some_and(|known| known >= before)) {
        return Ok(());
    }
    write_mark(dir, EXPIRED_FILE, &Expired { before })
}

/// The time of a stored line.
pub(super) fn time_of(line: &[u8]) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Timed {
        time: Timestamp,
    }
    serde_json::from_slice::<Timed>(line).ok().map(|timed| timed.time)
}

/// The latest time in the last lines of a file, or when it was written to, when none can be read.
fn last_time(mut open: &File, file: &StoredFile) -> io::Result<Timestamp> {
    // Two lines' worth holds at least one whole line.
    let tail = 2 * MAX_LINE_BYTES as u64;
    open.seek(SeekFrom::Start(file.bytes.saturating_sub(tail)))?;
    let mut bytes = Vec::new();
    open.take(tail).read_to_end(&mut bytes)?;
    let lines = bytes.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(time_of).max().unwrap_or(file.modified))
}
