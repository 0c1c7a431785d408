//! What commands print: lines for people, tables, JSON. The only code that writes to standard output.
//!
//! Colours are for terminals, and not for those whose owner set `NO_COLOR`. A reader that has gone away is the end of the
//! command and no failure.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Row, Table, presets};
use owo_colors::{OwoColorize as _, Style};
use serde::Serialize;

use crate::visible;

/// How a piece of text is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Like all others.
    Plain,
    /// All is well.
    Good,
    /// Look at this.
    Warning,
    /// Something is wrong.
    Bad,
    /// What matters most.
    Strong,
    /// What matters least.
    Quiet,
}

impl Tone {
    const fn style(self) -> Style {
        let style = Style::new();
        match self {
            Self::Plain => style,
            Self::Good => style.green(),
            Self::Warning => style.yellow(),
            Self::Bad => style.red(),
            Self::Strong => style.bold(),
            Self::Quiet => style.dimmed(),
        }
    }

    const fn colour(self) -> Option<comfy_table::Color> {
        match self {
            Self::Good => Some(comfy_table::Color::DarkGreen),
            Self::Warning => Some(comfy_table::Color::DarkYellow),
            Self::Bad => Some(comfy_table::Color::DarkRed),
            Self::Plain | Self::Strong | Self::Quiet => None,
        }
    }

    const fn attribute(self) -> Option<comfy_table::Attribute> {
        match self {
            Self::Strong => Some(comfy_table::Attribute::Bold),
            Self::Quiet => Some(comfy_table::Attribute::Dim),
            _ => None,
        }
    }
}

/// Something could not be printed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrintError {
    /// Whoever read it has gone away.
    #[error("nobody reads standard output any more")]
    Closed,
    /// Standard output does not take it.
    #[error("standard output can not be written")]
    Write(#[source] io::Error),
    /// It is no JSON.
    #[error("the result can not be written as JSON")]
    Json(#[source] serde_json::Error),
}

impl From<io::Error> for PrintError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Write(error),
        }
    }
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    colours: bool,
    terminal: bool,
}

impl Output {
    /// Standard output as it is.
    pub(crate) fn open() -> Self {
        let terminal = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR");
        Self { colours: colours(terminal, no_color.is_some_and(|value| !value.is_empty())), terminal }
    }

    /// `text` in a tone, for a part of a line. The text must be harmless.
    pub(crate) fn tone(&self, tone: Tone, text: &str) -> String {
        if self.colours && tone != Tone::Plain { text.style(tone.style()).to_string() } else { text.to_owned() }
    }

    /// Prints a line. It must be harmless: see [`visible`].
    #[expect(clippy::unused_self, reason = "who prints has a standard output")]
    pub(crate) fn line(&self, line: &str) -> Result<(), PrintError> {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    }

    /// Prints a document.
    pub(crate) fn json<T: Serialize>(&self, value: &T) -> Result<(), PrintError> {
        let json = serde_json::to_string_pretty(value).map_err(PrintError::Json)?;
        self.line(&visible::json(&json))
    }

    /// Prints one of several documents.
    pub(crate) fn json_line<T: Serialize>(&self, value: &T) -> Result<(), PrintError> {
        let json = serde_json::to_string(value).map_err(PrintError::Json)?;
        self.line(&visible::json(&json))
    }

    /// Prints a table, a row a line. A terminal gets it as wide as it is, at the expense of the last column, which is for
    /// prose; what is copied from the others is always whole. Everybody else gets whole cells.
    pub(crate) fn table(&self, header: &[&str], rows: Vec<Vec<(Tone, String)>>) -> Result<(), PrintError> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.terminal {
            table.set_content_arrangement(ContentArrangement::Dynamic);
        } else {
            table.force_no_tty();
        }
        let mut head = Row::from(header.iter().map(|name| self.cell(Tone::Strong, name)).collect::<Vec<_>>());
        head.max_height(1);
        table.set_header(head);
        for row in rows {
            let mut row = Row::from(row.iter().map(|(tone, text)| self.cell(*tone, text)).collect::<Vec<_>>());
            row.max_height(1);
            table.add_row(row);
        }
        for (n, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if n + 1 < header.len() {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        self.line(&table.trim_fmt())
    }

    fn cell(&self, tone: Tone, text: &str) -> Cell {
        let mut cell = Cell::new(visible::line(text));
        if self.colours {
            cell = tone.colour().map_or(cell.clone(), |colour| cell.clone().fg(colour));
            cell = tone.attribute().map_or(cell.clone(), |attribute| cell.clone().add_attribute(attribute));
        }
        cell
    }
}

const fn colours(terminal: bool, no_color: bool) -> bool {
    terminal && !no_color
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_whose_owner_wants_them() {
        assert!(colours(true, false));
        assert!(!colours(true, true));
        assert!(!colours(false, false));
        let plain = Output { colours: false, terminal: true };
        assert_eq!(plain.tone(Tone::Bad, "no"), "no");
        let coloured = Output { colours: true, terminal: true };
        assert_eq!(coloured.tone(Tone::Bad, "no"), "\u{1b}[31mno\u{1b}[0m");
    }

    #[test]
    fn a_reader_that_went_away_is_told_apart() {
        assert!(matches!(io::Error::from(io::ErrorKind::BrokenPipe).into(), PrintError::Closed));
        assert!(matches!(io::Error::other("disk").into(), PrintError::Write(_)));
    }
}
