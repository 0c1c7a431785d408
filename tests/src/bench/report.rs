//! What was measured, as a table for people and as lines of JSON for programs.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde_json::json;

use super::Name;

/// One figure.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    /// What exactly.
    pub(super) case: String,
    /// In what.
    pub(super) unit: Unit,
    /// How much.
    pub(super) value: f64,
    /// The least it can cost: the same work without us, measured in the same run.
    pub(super) floor: Option<f64>,
    /// What another way to do it takes, measured in the same run.
    pub(super) peer: Option<f64>,
    /// What it should be.
    pub(super) target: Option<Target>,
}

/// What a figure is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Milliseconds,
    Seconds,
    Megabytes,
    Runs,
    Messages,
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Target {
    /// The value is at most this.
    AtMost(f64),
    /// The value is below this.
    Below(f64),
    /// The value is this.
    Exactly(f64),
    /// The value is at most so many times the floor.
    TimesFloor(f64),
}

/// Where and how figures are printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Report {
    /// As JSON.
    pub(super) json: bool,
}

impl Unit {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::Megabytes => "MB",
            Self::Runs => "runs",
            Self::Messages => "messages",
        }
    }
}

impl Target {
    fn as_text(self) -> String {
        match self {
            Self::AtMost(most) => format!("<= {most}"),
            Self::Below(limit) => format!("< {limit}"),
            Self::Exactly(value) => format!("= {value}"),
            Self::TimesFloor(times) => format!("ratio <= {times}"),
        }
    }
}

impl Measured {
    /// A figure with nothing to compare it with.
    pub(super) fn new(case: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self { case: case.into(), unit, value, floor: None, peer: None, target: None }
    }

    /// The same beside what another way takes.
    pub(super) fn beside(self, peer: f64) -> Self {
        Self { peer: Some(peer), ..self }
    }

    /// The same with its floor.
    pub(super) fn over(self, floor: f64) -> Self {
        Self { floor: Some(floor), ..self }
    }

    /// The same with its target.
    pub(super) fn target(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }

    /// The value as a multiple of its floor, or of its peer where no floor is known.
    fn ratio(&self) -> Option<f64> {
        self.floor.or(self.peer).filter(|floor| *floor > 0.0).map(|floor| self.value / floor)
    }

    /// Whether it is what it should be; none without a target. What can not be compared is not met.
    fn met(&self) -> Option<bool> {
        self.target.map(|target| match target {
            Target::AtMost(most) => self.value <= most,
            Target::Below(limit) => self.value < limit,
            Target::Exactly(value) => (self.value - value).abs() < f64::EPSILON,
            Target::TimesFloor(times) => self.floor.is_some() && self.ratio().is_some_and(|ratio| ratio <= times),
        })
    }

    fn json(&self, bench: Name) -> String {
        json!({
            "bench": bench.as_str(),
            "case": self.case,
            "unit": self.unit.as_str(),
            "value": rounded(self.value),
            "floor": self.floor.map(rounded),
            "peer": self.peer.map(rounded),
            "ratio": self.ratio().map(rounded),
            "target": self.target.map(Target::as_text),
            "met": self.met(),
        })
        .to_string()
    }

    fn row(&self) -> [String; 8] {
        let or_dash = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let met = self.met().map_or("-", |met| if met { "met" } else { "MISSED" });
        [
            self.case.clone(),
            format!("{:.2}", self.value),
            self.unit.as_str().to_owned(),
            or_dash(self.floor),
            or_dash(self.peer),
            or_dash(self.ratio()),
            self.target.map_or_else(|| "-".to_owned(), Target::as_text),
            met.to_owned(),
        ]
    }
}

impl Report {
    /// Prints the figures of a bench.
    #[expect(clippy::print_stdout, reason = "figures are what the program is for")]
    pub(super) fn print(self, bench: Name, measured: &[Measured]) {
        if self.json {
            for figure in measured {
                println!("{}", figure.json(bench));
            }
        } else {
            println!("\n{}", table(bench, measured));
        }
    }
}

fn table(bench: Name, measured: &[Measured]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([bench.as_str(), "value", "unit", "floor", "peer", "ratio", "target", "result"]);
    for figure in measured {
        table.add_row(figure.row());
    }
    for column in [1, 3, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// To what a program should compare: more digits than this are noise.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// Times, and where in them most lie.
#[derive(Debug)]
pub(super) struct Times {
    nanos: Histogram<u64>,
}

impl Times {
    /// None yet.
    pub(super) fn new() -> anyhow::Result<Self> {
        /// Digits that are kept.
        const DIGITS: u8 = 3;
        Ok(Self { nanos: Histogram::new(DIGITS)? })
    }

    /// Those that were measured elsewhere.
    pub(super) fn of(times: impl IntoIterator<Item = Duration>) -> anyhow::Result<Self> {
        let mut all = Self::new()?;
        for time in times {
            all.add(time)?;
        }
        Ok(all)
    }

    /// Adds one.
    pub(super) fn add(&mut self, time: Duration) -> anyhow::Result<()> {
        Ok(self.nanos.record(u64::try_from(time.as_nanos())?)?)
    }

    /// What so many percent are not above, in milliseconds.
    pub(super) fn percentile(&self, percent: f64) -> f64 {
        milliseconds(Duration::from_nanos(self.nanos.value_at_quantile(percent / 100.0)))
    }
}

/// A time in milliseconds.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// A number of things as a figure. Benches count thousands, which a float holds exactly.
pub(super) fn count(things: usize) -> f64 {
    u32::try_from(things).map_or(f64::INFINITY, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_over_the_floor_and_held_against_its_target() {
        let figure = Measured::new("append", Unit::Milliseconds, 1.4).over(1.0).target(Target::TimesFloor(1.3));
        assert_eq!(figure.met(), Some(false));
        assert!(figure.row().contains(&"MISSED".to_owned()));
        let figure = Measured { value: 1.2, ..figure };
        assert_eq!(figure.met(), Some(true));
        let without = Measured { floor: None, ..figure };
        assert_eq!(without.met(), Some(false), "without a floor nobody can tell");
    }

    #[test]
    fn a_line_of_json_has_every_field_also_where_nothing_is_known() {
        let line = Measured::new("ready", Unit::Seconds, 0.123_45).json(Name::Up);
        let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let expected = json!({
            "bench": "up", "case": "ready", "unit": "s", "value": 0.123,
            "floor": null, "peer": null, "ratio": null, "target": null, "met": null,
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn percentiles_are_of_what_was_added() {
        let times = Times::of((1..=100).map(Duration::from_millis)).expect("times");
        assert!((times.percentile(50.0) - 50.0).abs() < 0.1);
        assert!((times.percentile(99.0) - 99.0).abs() < 0.1);
    }
}
