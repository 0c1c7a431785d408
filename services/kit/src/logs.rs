//! A bounded store of log lines, of services and of the tools that they run, from which timelines read them.
//!
//! Lines are JSON, one a line, in files that only one process writes; a file that is full or old is closed and another
//! one begun. The directory is bounded in bytes and in age. Log lines are not part of the log of events, and losing them is allowed, but
//! never silently: what expired, what was dropped because the writer could not keep up, what a crash cut in
//! half and since when lines are kept here at all is told to the reader.
//!
//! [`LogSink`] is what others write to: a bounded queue and a thread of its own, so that no task waits for a disk.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use jiff::{SignedDuration, Timestamp};
use schemas::RunId;

use crate::clock;

mod files;
mod line;
mod sink;
mod writer;

use files::StoredFile;
pub(crate) use line::to_json;
pub use line::{Level, LogLine, MAX_LINE_BYTES, Stream};
pub use sink::{LogSink, SinkGuard};
pub use writer::LogWriter;

/// A file is closed at this size: small enough that expiring one loses little, large enough that a full
/// directory has few.
pub const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;

/// A file is closed after this time, so that age can be bounded by whole files.
pub const MAX_FILE_SPAN: SignedDuration = SignedDuration::from_hours(6);

/// All files together. Scanning them for one run takes about a second on a laptop.
pub const MAX_STORE_BYTES: u64 = 256 * 1024 * 1024;

/// Lines older than this expire. Two weeks cover a holiday; what matters longer is in the log of events.
pub const MAX_AGE: SignedDuration = SignedDuration::from_hours(14 * 24);

/// Lines of one run that a reader gets; the newest are kept. A timeline with more is read by nobody.
pub const MAX_LINES_OF_RUN: usize = 50_000;

/// Clocks of processes on one machine, and of its file system, may differ by this much.
const CLOCK_SLACK: SignedDuration = SignedDuration::from_secs(60);

/// The bounds of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Size at which a file is closed.
    pub file_bytes: u64,
    /// Age at which a file is closed.
    pub file_span: SignedDuration,
    /// Size of all files together.
    pub store_bytes: u64,
    /// Age at which lines expire.
    pub age: SignedDuration,
}

impl Limits {
    /// The limits that Nightcrew ships with.
    pub const SHIPPED: Self =
        Self { file_bytes: MAX_FILE_BYTES, file_span: MAX_FILE_SPAN, store_bytes: MAX_STORE_BYTES, age: MAX_AGE };
}

/// A directory of log lines. Cheap to clone; several processes may use one directory.
#[derive(Debug, Clone)]
pub struct LogStore {
    dir: PathBuf,
    limits: Limits,
}

/// The lines of one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunLines {
    /// In order of time.
    pub lines: Vec<LogLine>,
    /// Since when lines are kept here: of a run that began earlier some were never here, or were deleted with the whole store.
    /// None when there is no store, as on another machine than that of the services.
    pub kept_since: Option<Timestamp>,
    /// Lines before this may be gone: a run that began earlier has a gap in front of [`RunLines::lines`].
    pub expired_before: Option<Timestamp>,
    /// Lines that can not be read, of any run: cut in half by a crash, or not ours.
    pub broken: u64,
    /// Older lines of this run that were left out because there are more than [`MAX_LINES_OF_RUN`].
    pub omitted: u64,
}

impl LogStore {
    /// The store in `dir` for who writes to it: it is made when it is not there, readable by its owner only, and keeps lines
    /// from then on.
    pub fn open(dir: impl Into<PathBuf>, limits: Limits) -> io::Result<Self> {
        let store = Self::at(dir, limits);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&store.dir)?;
        files::mark_kept_since(&store.dir, clock::now())?;
        Ok(store)
    }

    /// The store in `dir` for who only reads it. It is not made when it is not there: who looks for lines where nobody writes
    /// them must not find an empty store, which would say that there were none.
    pub fn at(dir: impl Into<PathBuf>, limits: Limits) -> Self {
        Self { dir: dir.into(), limits }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A writer with a file of its own. Most callers want a [`LogSink`].
    pub fn writer(&self) -> LogWriter {
        LogWriter::new(self.clone())
    }

    /// Every line of `run` that is still there. Blocks: it reads all files.
    pub fn lines_of(&self, run: RunId) -> io::Result<RunLines> {
        self.lines_between(run, Timestamp::MIN, Timestamp::MAX)
    }

    /// As [`LogStore::lines_of`], but reads only files that were written to after `since`, such as the time the run was
    /// requested, and does not count what was broken after `until`, such as the run's end. Blocks.
    pub fn lines_between(&self, run: RunId, since: Timestamp, until: Timestamp) -> io::Result<RunLines> {
        let since = since.checked_sub(CLOCK_SLACK).unwrap_or(Timestamp::MIN);
        let until = until.checked_add(CLOCK_SLACK).unwrap_or(Timestamp::MAX);
        // Read first: a store that is deleted while it is read is not taken for one that kept everything.
        let kept_since = files::kept_since(&self.dir)?;
        let mut found = Collected::new(run, until);
        for file in files::list(&self.dir)? {
            if file.modified >= since {
                found.read(&file)?;
            }
        }
        // Read last: what a sweep deletes while the files are being read is in it by then.
        let expired_before = files::expired_before(&self.dir)?;
        Ok(found.finish(kept_since, expired_before))
    }

    /// Deletes what is over the limits, oldest first, and remembers up to when. Files that a living process writes
    /// to are left alone.
    pub fn sweep(&self, now: Timestamp) -> io::Result<()> {
        files::sweep(&self.dir, &self.limits, now)
    }
}

/// Lines of a run as they come up.
struct Collected {
    run: RunId,
    needle: String,
    until: Timestamp,
    lines: std::collections::VecDeque<LogLine>,
    broken: u64,
    omitted: u64,
}

impl Collected {
    fn new(run: RunId, until: Timestamp) -> Self {
        let lines = std::collections::VecDeque::new();
        Self { run, needle: run.to_string(), until, lines, broken: 0, omitted: 0 }
    }

    fn read(&mut self, file: &StoredFile) -> io::Result<()> {
        let open = match fs::File::open(&file.path) {
            Ok(open) => open,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        // Asked before it is read: a writer that ends meanwhile leaves whole lines.
        let growing = files::is_being_written(&open)?;
        let mut reader = BufReader::new(open);
        let (mut line, mut whole) = (Vec::new(), Vec::new());
        loop {
            line.clear();
            // One more than allowed tells a line that is too long from one that just fits.
            let limit = MAX_LINE_BYTES + 1;
            let read = reader.by_ref().take(limit as u64).read_until(b'\n', &mut line)?;
            let half = read < limit && !line.ends_with(b"\n");
            if read == 0 || (half && growing) {
                return Ok(());
            }
            if self.take(&line) {
                std::mem::swap(&mut line, &mut whole);
            } else if files::time_of(&whole).is_none_or(|before| before <= self.until) {
                self.broken += 1;
            }
        }
    }

    /// False for a line that can not be read.
    fn take(&mut self, line: &[u8]) -> bool {
        let Some(text) = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok()) else {
            return false;
        };
        // Parsing costs far more than searching, and most lines belong to other runs.
        if !text.contains(&self.needle) {
            return text.starts_with('{') && text.ends_with('}');
        }
        match serde_json::from_str::<LogLine>(text) {
            Ok(line) if line.run_id == Some(self.run) => self.push(line),
            Ok(_) => {}
            Err(_) => return false,
        }
        true
    }

    fn push(&mut self, line: LogLine) {
        if self.lines.len() == MAX_LINES_OF_RUN {
            self.lines.pop_front();
            self.omitted += 1;
        }
        self.lines.push_back(line);
    }

    fn finish(self, kept_since: Option<Timestamp>, expired_before: Option<Timestamp>) -> RunLines {
        let mut lines = Vec::from(self.lines);
        lines.sort_by_key(|line| line.time);
        RunLines { lines, kept_since, expired_before, broken: self.broken, omitted: self.omitted }
    }
}

fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::MIN)
}
