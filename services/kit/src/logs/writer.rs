//! Appends lines to a file of its own and begins another one when that is full or old.

use std::{
    fs::File,
    io::{self, Write},
};

use jiff::Timestamp;

use super::{LogLine, LogStore, files};

/// Writes lines; one writer, one file.
#[derive(Debug)]
pub struct LogWriter {
    store: LogStore,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
    since: Timestamp,
}

impl LogWriter {
    pub(super) const fn new(store: LogStore) -> Self {
        Self { store, open: None }
    }

    /// Appends `lines` in one write. After an error the file is left behind, because it may end in half a line, and
    /// the next call begins another one.
    pub fn append(&mut self, lines: &[LogLine], now: Timestamp) -> io::Result<()> {
        let result = self.try_append(lines, now);
        if result.is_err() {
            self.open = None;
        }
        result
    }

    fn try_append(&mut self, lines: &[LogLine], now: Timestamp) -> io::Result<()> {
        let bytes: Vec<u8> = lines.iter().flat_map(LogLine::encode).collect();
        if bytes.is_empty() {
            return Ok(());
        }
        let open = self.current(now)?;
        open.file.write_all(&bytes)?;
        open.bytes += bytes.len() as u64;
        Ok(())
    }

    fn current(&mut self, now: Timestamp) -> io::Result<&mut Open> {
        let limits = self.store.limits;
        let usable = self.open.take().filter(|open| {
            let end = open.since.saturating_add(limits.file_span).unwrap_or(Timestamp::MAX);
            open.bytes < limits.file_bytes && now < end && now >= open.since
        });
        let open = if let Some(open) = usable {
            open
        } else {
            // Sweeping when a file begins keeps the bound without a timer: the directory grows by whole files.
            self.store.sweep(now)?;
            // Somebody may have deleted everything: what was here until now is then known to be gone.
            files::mark_kept_since(&self.store.dir, now)?;
            Open { file: files::create(&self.store.dir, now)?, bytes: 0, since: now }
        };
        Ok(self.open.insert(open))
    }
}
