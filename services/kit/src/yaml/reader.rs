//! Text to [`Document`]: YAML's events become a JSON value, and everything that is not plain YAML becomes a problem.
//!
//! It works on the parser's events and not on a loaded tree, because a tree has already expanded aliases and dropped the
//! places of keys.

use std::collections::{BTreeMap, BTreeSet};

use saphyr::Scalar;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};

use super::{
    Problem,
    document::{Document, Mark, Place, child},
    tabs,
};

/// Largest file in bytes. A crew's files are a few kilobytes; a megabyte holds a thousand agents.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Deepest nesting. The deepest schema here has 8 levels; the reader recurses once a level.
pub const MAX_DEPTH: usize = 32;

/// Most nodes in a file: what [`MAX_BYTES`] of ordinary lines hold, far more than anybody writes by hand.
pub const MAX_NODES: usize = 100_000;

/// Reads `text`; there is no document when it is not YAML or exceeds a bound.
pub(super) fn read(file: &str, text: &str) -> (Option<Document>, Vec<Problem>) {
    if text.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, more than {MAX_BYTES}", text.len());
        return (None, vec![Problem::of_file(file, message, None)]);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::new(file, text);
    let outcome = reader.stream();
    let (from, to) = match &outcome {
        Ok(()) => (usize::MAX, usize::MAX),
        Err(Stop::Syntax(error)) => tabs::suspects(text, error.marker().line(), error.info()),
        Err(Stop::Bound) => (usize::MAX, 0),
    };
    let tabs = tabs::find(text, &reader.scalars, to);
    let tab_is_cause = tabs.iter().any(|tab| tab.line >= from);
    for tab in tabs {
        reader.say(tab, "", "a tab", Some("indent and separate with spaces"));
    }
    match outcome {
        Ok(()) => (Some(reader.document), reader.problems),
        Err(stop) => {
            if let Stop::Syntax(error) = stop
                && !tab_is_cause
            {
                let mark = reader.mark(*error.marker());
                reader.say(mark, "", &format!("not valid YAML: {}", error.info()), None);
            }
            (None, reader.problems)
        }
    }
}

/// Why reading ended before the end.
enum Stop {
    Syntax(ScanError),
    /// A bound was exceeded; its problem has been noted.
    Bound,
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    document: Document,
    problems: Vec<Problem>,
    /// Where scalars stand, in characters from the start: tabs in them are content.
    scalars: Vec<std::ops::Range<usize>>,
    nodes: usize,
    lines: usize,
    /// Inside the value of a duplicate key, whose place belongs to the first one.
    shadowed: bool,
}

impl<'t> Reader<'t> {
    fn new(file: &str, text: &'t str) -> Self {
        let document =
            Document { file: file.to_owned(), value: Value::Null, places: BTreeMap::new(), refused: BTreeSet::new() };
        Self {
            parser: Parser::new_from_str(text),
            document,
            problems: Vec::new(),
            scalars: Vec::new(),
            nodes: 0,
            lines: count_lines(text),
            shadowed: false,
        }
    }

    fn stream(&mut self) -> Result<(), Stop> {
        let mut documents = 0;
        while let Some(event) = self.parser.next_event() {
            let (event, span) = event.map_err(Stop::Syntax)?;
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        let hint = Some("everything belongs into one document");
                        self.say(self.mark(span.start), "", "a second YAML document begins here", hint);
                        return Ok(());
                    }
                    let (event, span) = self.next()?;
                    self.document.value = self.node(event, span, "", None, 0)?;
                }
                Event::StreamEnd => break,
                _ => {}
            }
        }
        if self.document.value.is_null() && self.document.refused.is_empty() {
            self.document.refused.insert(String::new());
            self.say(Mark::START, "", "the file is empty", None);
        }
        Ok(())
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Stop> {
        match self.parser.next_event() {
            Some(event) => event.map_err(Stop::Syntax),
            None => Err(Stop::Bound),
        }
    }

    fn node(
        &mut self,
        event: Event<'t>,
        span: Span,
        pointer: &str,
        key: Option<Mark>,
        depth: usize,
    ) -> Result<Value, Stop> {
        let value = if is_absent(&event) { key.unwrap_or(self.mark(span.start)) } else { self.mark(span.start) };
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            let message = format!("more than {MAX_NODES} nodes, or nested deeper than {MAX_DEPTH}");
            self.say(value, pointer, &message, None);
            return Err(Stop::Bound);
        }
        if !self.shadowed {
            self.document.places.insert(pointer.to_owned(), Place { key, value });
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.scalars.push(span.start.index()..span.end.index());
                self.refuse_extras(value, pointer, anchor, tag.as_deref());
                Ok(self.scalar(&text, style, value, pointer))
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(value, pointer, anchor, tag.as_deref());
                self.sequence(pointer, depth)
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(value, pointer, anchor, tag.as_deref());
                self.mapping(pointer, depth)
            }
            Event::Alias(_) => {
                self.say(value, pointer, "aliases are not allowed", Some("write the value out"));
                Ok(self.refused(pointer))
            }
            _ => Ok(Value::Null),
        }
    }

    fn sequence(&mut self, pointer: &str, depth: usize) -> Result<Value, Stop> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Value::Array(items));
            }
            let at = child(pointer, &items.len().to_string());
            items.push(self.node(event, span, &at, None, depth + 1)?);
        }
    }

    fn mapping(&mut self, pointer: &str, depth: usize) -> Result<Value, Stop> {
        let mut map = Map::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Value::Object(map));
            }
            let mark = self.mark(span.start);
            let key = self.key(event, span, pointer, depth)?;
            let (event, span) = self.next()?;
            let at = key.as_ref().map_or_else(|| pointer.to_owned(), |key| child(pointer, key));
            let first = key.as_ref().is_some_and(|key| !map.contains_key(key));
            let shadowed = self.shadowed;
            self.shadowed |= !first;
            let value = self.node(event, span, &at, Some(mark), depth + 1)?;
            self.shadowed = shadowed;
            match key {
                Some(key) if map.contains_key(&key) => {
                    let hint = format!("first at line {}", self.document.key_mark(&at).line);
                    self.say(mark, &at, &format!("duplicate key {key:?}"), Some(&hint));
                }
                Some(key) => drop(map.insert(key, value)),
                None => {}
            }
        }
    }

    /// The text of a key, or nothing after noting why it can not be one.
    fn key(&mut self, event: Event<'t>, span: Span, pointer: &str, depth: usize) -> Result<Option<String>, Stop> {
        let mark = self.mark(span.start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.scalars.push(span.start.index()..span.end.index());
                self.refuse_extras(mark, pointer, anchor, tag.as_deref());
                if text == "<<" && style == ScalarStyle::Plain {
                    self.say(mark, pointer, "merge keys are not allowed", Some("write the keys out"));
                    return Ok(None);
                }
                if text.is_empty() {
                    self.say(mark, pointer, "a key is empty", None);
                    return Ok(None);
                }
                Ok(Some(text.into_owned()))
            }
            event => {
                self.say(mark, pointer, "a key must be plain text", None);
                let shadowed = std::mem::replace(&mut self.shadowed, true);
                self.node(event, span, pointer, None, depth + 1)?;
                self.shadowed = shadowed;
                Ok(None)
            }
        }
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, mark: Mark, pointer: &str) -> Value {
        match Scalar::parse_from_cow_and_metadata(text.into(), style, None) {
            Some(Scalar::Null) | None => Value::Null,
            Some(Scalar::Boolean(value)) => Value::Bool(value),
            Some(Scalar::Integer(value)) => Value::from(value),
            Some(Scalar::String(value)) => Value::String(value.into_owned()),
            Some(Scalar::FloatingPoint(value)) => {
                let whole = text.bytes().all(|b| b.is_ascii_digit() || b == b'-' || b == b'+');
                match Number::from_f64(value.0) {
                    Some(number) if !whole => Value::Number(number),
                    _ => {
                        self.say(mark, pointer, "the number is out of range", None);
                        self.refused(pointer)
                    }
                }
            }
        }
    }

    fn refuse_extras(&mut self, mark: Mark, pointer: &str, anchor: usize, tag: Option<&Tag>) {
        if anchor != 0 {
            self.say(mark, pointer, "anchors are not allowed", Some("write the value out where it is used"));
        }
        if tag.is_some() {
            self.say(mark, pointer, "tags are not allowed", Some("quote text, and leave numbers plain"));
        }
    }

    /// The parser places what is missing at the end behind the last line.
    fn mark(&self, marker: Marker) -> Mark {
        if marker.line() > self.lines {
            return Mark { line: self.lines, column: 1 };
        }
        Mark { line: marker.line(), column: marker.col() + 1 }
    }

    fn refused(&mut self, pointer: &str) -> Value {
        if !self.shadowed {
            self.document.refused.insert(pointer.to_owned());
        }
        Value::Null
    }

    fn say(&mut self, mark: Mark, pointer: &str, message: &str, hint: Option<&str>) {
        self.problems.push(Problem {
            file: self.document.file.clone(),
            line: mark.line,
            column: mark.column,
            path: pointer.to_owned(),
            message: message.to_owned(),
            hint: hint.map(str::to_owned),
        });
    }
}

/// A value that was left out: `key:` and nothing. The parser places it where the next token stands.
fn is_absent(event: &Event<'_>) -> bool {
    matches!(event, Event::Scalar(text, ScalarStyle::Plain, _, None) if text.is_empty())
}

/// Lines as YAML and editors count them: a lone carriage return ends one too.
fn count_lines(text: &str) -> usize {
    let breaks = |line: &str| line.strip_suffix('\r').unwrap_or(line).matches('\r').count();
    text.split_inclusive('\n').map(|line| 1 + breaks(line.trim_end_matches('\n'))).sum::<usize>().max(1)
}
