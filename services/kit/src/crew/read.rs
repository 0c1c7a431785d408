//! Bounded reading of a crew's files.

use std::{fs::File, io, io::Read, path::Path};

use crate::yaml::{MAX_BYTES, Problem};

/// A file of the crew that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file system refused.
    #[error("the file can not be read")]
    Io(#[source] io::Error),
    /// More bytes than any of these files may have.
    #[error("the file has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// Not UTF-8 text.
    #[error("line {line} is not UTF-8 text")]
    NotText {
        /// The first such line, from 1.
        line: usize,
    },
}

impl ReadError {
    /// Whether there is no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// The same as a problem of `file`.
    pub(super) fn problem(&self, file: &str) -> Problem {
        match self {
            _ if self.is_not_found() => {
                Problem::of_file(file, "there is no such file", Some("`nightcrew init` writes a first one".to_owned()))
            }
            Self::Io(error) => Problem::of_file(file, self.to_string(), Some(error.to_string())),
            Self::TooLarge => Problem::of_file(file, self.to_string(), None),
            Self::NotText { line } => Problem { line: *line, ..Problem::of_file(file, "not UTF-8 text", None) },
        }
    }
}

/// The text of the file at `path`, of at most [`MAX_BYTES`].
pub(super) fn text(path: &Path) -> Result<String, ReadError> {
    let mut bytes = Vec::new();
    // One more than allowed, so that a file of exactly the limit is told from a larger one.
    File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        return Err(ReadError::TooLarge);
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        ReadError::NotText { line: good.split(|byte| *byte == b'\n').count() }
    })
}
