//! Counts usage on the wire: a pure reader of an answer's bytes, streamed or not.
//!
//! It never holds an answer back. What it can not read, it does not count, and says so: [`Metered::input`] and
//! [`Metered::output`] tell which figures the upstream reported, [`Metered::verdict`] whether the answer is one.

use schemas::Usage;
use serde_json::Value;

use crate::upstream::Api;

/// Longest name of a model that is taken over from an answer.
const MAX_MODEL_BYTES: usize = 256;

/// What an answer turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// It has not come to the end that its API prescribes.
    #[default]
    Incomplete,
    /// It came to that end.
    Complete,
    /// It told an error.
    Error,
    /// Part of it can not be read.
    Malformed,
}

/// What an answer said about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metered {
    /// The model that answered.
    pub model: Option<String>,
    /// The last figures that were reported.
    pub usage: Usage,
    /// Whether the input was reported.
    pub input: bool,
    /// Whether the output was reported.
    pub output: bool,
    /// What it turned out to be.
    pub verdict: Verdict,
}

/// Reads an answer that was sent whole.
pub fn whole(api: Api, body: &[u8]) -> Metered {
    let mut metered = Metered::default();
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        metered.verdict = Verdict::Malformed;
        return metered;
    };
    let is_answer = match api {
        Api::Anthropic => value["type"] == "message",
        Api::OpenAi => value["choices"].is_array(),
    };
    metered.verdict = if is_answer { Verdict::Complete } else { Verdict::Malformed };
    metered.count(api, &value);
    metered
}

/// Reads an answer that is streamed as server-sent events.
#[derive(Debug)]
pub struct StreamMeter {
    api: Api,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// The data of an event whose end has not come.
    data: Vec<u8>,
    metered: Metered,
}

impl StreamMeter {
    /// A meter for a stream of `api`.
    pub fn new(api: Api) -> Self {
        Self { api, line: Vec::new(), data: Vec::new(), metered: Metered::default() }
    }

    /// What the stream turned out to be so far.
    pub const fn verdict(&self) -> Verdict {
        self.metered.verdict
    }

    /// Takes the next bytes, cut anywhere. Each byte is looked at once.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.line_ends();
        }
        self.line.extend_from_slice(bytes);
    }

    /// What was said, once the upstream has closed.
    pub fn finish(mut self) -> Metered {
        if !self.line.is_empty() {
            self.line_ends();
        }
        self.event_ends();
        self.metered
    }

    fn line_ends(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        let text = line.strip_suffix(b"\r").unwrap_or(&line);
        if text.is_empty() {
            self.event_ends();
        } else if let Some(data) = text.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data);
        }
        // Its room is used again.
        line.clear();
        self.line = line;
    }

    fn event_ends(&mut self) {
        let data = self.data.trim_ascii();
        if data == b"[DONE]" {
            self.metered.settle(Verdict::Complete);
        } else if !data.is_empty() {
            match serde_json::from_slice::<Value>(data) {
                Ok(value) => self.metered.event(self.api, &value),
                Err(_) => self.metered.settle(Verdict::Malformed),
            }
        }
        self.data.clear();
    }
}

impl Metered {
    /// What went wrong stays wrong, whatever follows.
    fn settle(&mut self, verdict: Verdict) {
        if matches!(self.verdict, Verdict::Incomplete | Verdict::Complete) {
            self.verdict = verdict;
        }
    }

    fn event(&mut self, api: Api, value: &Value) {
        if !value["error"].is_null() {
            self.settle(Verdict::Error);
        } else if api == Api::Anthropic && value["type"] == "message_stop" {
            self.settle(Verdict::Complete);
        }
        self.count(api, value);
    }

    fn count(&mut self, api: Api, value: &Value) {
        match api {
            Api::Anthropic => self.anthropic(value),
            Api::OpenAi => self.openai(value),
        }
    }

    fn answered_by(&mut self, model: &Value) {
        let name = model.as_str().filter(|name| name.len() <= MAX_MODEL_BYTES);
        if let Some(name) = name.filter(|name| self.model.as_deref() != Some(name)) {
            self.model = Some(name.to_owned());
        }
    }

    fn anthropic(&mut self, value: &Value) {
        let starts = value["type"] == "message_start";
        let message = if starts { &value["message"] } else { value };
        self.answered_by(&message["model"]);
        let reported = |name: &str, into: &mut u64| {
            let count = message["usage"][name].as_u64();
            *into = count.unwrap_or(*into);
            count.is_some()
        };
        let usage = &mut self.usage;
        self.input |= reported("input_tokens", &mut usage.input_tokens);
        // The figure in `message_start` is a placeholder; the one in `message_delta` is the count.
        self.output |= reported("output_tokens", &mut usage.output_tokens) && !starts;
        reported("cache_creation_input_tokens", &mut usage.cache_write_tokens);
        reported("cache_read_input_tokens", &mut usage.cache_read_tokens);
    }

    fn openai(&mut self, value: &Value) {
        self.answered_by(&value["model"]);
        let usage = &value["usage"];
        let counts = (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64());
        let (Some(prompt), Some(completion)) = counts else {
            return;
        };
        let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64();
        let cached = cached.unwrap_or(0).min(prompt);
        self.usage = Usage {
            input_tokens: prompt - cached,
            output_tokens: completion,
            cache_write_tokens: 0,
            cache_read_tokens: cached,
        };
        (self.input, self.output) = (true, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "event: message_start\r\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m-1\",\"usage\":{\"input_tokens\":12,\"output_tokens\":1,\"cache_read_input_tokens\":3,\"cache_creation_input_tokens\":null}}}\r\n\r\nevent: message_delta\ndata: {\"type\":\"message_delta\",\ndata: \"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":7}}\n\n: a comment\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

    fn metered(api: Api, chunks: &[&[u8]]) -> Metered {
        let mut meter = StreamMeter::new(api);
        for chunk in chunks {
            meter.feed(chunk);
        }
        meter.finish()
    }

    #[test]
    fn a_stream_is_counted_wherever_it_is_cut_into_chunks() {
        let whole = metered(Api::Anthropic, &[STREAM.as_bytes()]);
        let usage = Usage { input_tokens: 12, output_tokens: 7, cache_write_tokens: 0, cache_read_tokens: 3 };
        assert_eq!(whole.usage, usage);
        assert_eq!(whole.model.as_deref(), Some("m-1"));
        assert_eq!((whole.input, whole.output), (true, true));
        assert_eq!(whole.verdict, Verdict::Complete);
        for cut in 0..STREAM.len() {
            let (a, b) = STREAM.as_bytes().split_at(cut);
            assert_eq!(metered(Api::Anthropic, &[a, b]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_stream_that_breaks_off_is_not_complete_and_its_output_not_reported() {
        let cut = STREAM.find("event: message_delta").unwrap();
        let broken = metered(Api::Anthropic, &[&STREAM.as_bytes()[..cut]]);
        assert_eq!((broken.input, broken.output), (true, false));
        assert_eq!(broken.verdict, Verdict::Incomplete);
    }

    #[test]
    fn an_error_or_what_can_not_be_read_is_no_answer_though_the_end_follows() {
        for (event, verdict) in [
            ("{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}", Verdict::Error),
            ("{\"type\":\"content_bl", Verdict::Malformed),
        ] {
            let stream = format!("data: {event}\n\n{STREAM}");
            assert_eq!(metered(Api::Anthropic, &[stream.as_bytes()]).verdict, verdict);
        }
    }

    #[test]
    fn openai_counts_cached_input_apart() {
        let body = br#"{"model":"gpt","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":6}}}"#;
        let sent_whole = whole(Api::OpenAi, body);
        let usage = Usage { input_tokens: 4, output_tokens: 4, cache_write_tokens: 0, cache_read_tokens: 6 };
        assert_eq!(sent_whole.usage, usage);
        let mut stream = b"data: ".to_vec();
        stream.extend_from_slice(body);
        stream.extend_from_slice(b"\n\ndata: [DONE]\n\n");
        assert_eq!(metered(Api::OpenAi, &[&stream]), sent_whole);
    }

    #[test]
    fn what_is_sent_whole_is_an_answer_of_its_api_or_none() {
        let verdict = |api, body: &str| whole(api, body.as_bytes()).verdict;
        assert_eq!(verdict(Api::Anthropic, "{\"type\":\"message\"}"), Verdict::Complete);
        for body in ["<html>", "{\"type\":\"mess", "{}", "[]", "{\"error\":{}}"] {
            assert_eq!(verdict(Api::Anthropic, body), Verdict::Malformed, "{body}");
            assert_eq!(verdict(Api::OpenAi, body), Verdict::Malformed, "{body}");
        }
    }
}
