//! Counts usage on the wire: a pure reader of an answer's bytes, streamed or not.
//!
//! It never holds an answer back and never fails one: what it can not read, it does not count, and says so by
//! [`Metered::reported`].

use schemas::Usage;
use serde_json::Value;

use crate::upstream::Api;

/// A line of a stream longer than this is not looked at; usage stands in short ones.
const MAX_LINE_BYTES: usize = 1024 * 1024;

/// What an answer said about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metered {
    /// The model that answered.
    pub model: Option<String>,
    /// The last figures that were reported.
    pub usage: Usage,
    /// Whether figures for both input and output were reported.
    pub reported: bool,
    /// Whether the answer came to the end that its API prescribes.
    pub complete: bool,
}

/// Reads one answer.
#[derive(Debug)]
pub struct Meter {
    api: Api,
    streamed: bool,
    pending: Vec<u8>,
    metered: Metered,
    input: bool,
    output: bool,
}

impl Meter {
    /// A meter for an answer of `api`, streamed as server-sent events or sent whole.
    pub const fn new(api: Api, streamed: bool) -> Self {
        let metered = Metered {
            model: None,
            usage: Usage { input_tokens: 0, output_tokens: 0, cache_write_tokens: 0, cache_read_tokens: 0 },
            reported: false,
            complete: false,
        };
        Self { api, streamed, pending: Vec::new(), metered, input: false, output: false }
    }

    /// Takes the next bytes, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        if !self.streamed {
            return;
        }
        let mut start = 0;
        while let Some(length) = self.pending[start..].iter().position(|byte| *byte == b'\n') {
            let line = self.pending[start..start + length].to_vec();
            start += length + 1;
            self.line(&line);
        }
        self.pending.drain(..start);
        if self.pending.len() > MAX_LINE_BYTES {
            self.pending.clear();
        }
    }

    /// What was said, once the upstream has closed.
    pub fn finish(mut self) -> Metered {
        if !self.streamed
            && let Ok(value) = serde_json::from_slice::<Value>(&self.pending)
        {
            self.metered.complete = true;
            self.value(&value);
        }
        self.metered.reported = self.input && self.output;
        self.metered
    }

    fn line(&mut self, line: &[u8]) {
        let Some(data) = line.strip_prefix(b"data:") else { return };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            self.metered.complete = true;
        } else if let Ok(value) = serde_json::from_slice::<Value>(data) {
            self.value(&value);
        }
    }

    fn value(&mut self, value: &Value) {
        match self.api {
            Api::Anthropic => self.anthropic(value),
            Api::OpenAi => self.openai(value),
        }
    }

    fn anthropic(&mut self, value: &Value) {
        let message = if value["type"] == "message_start" { &value["message"] } else { value };
        if let Some(model) = message["model"].as_str() {
            self.metered.model = Some(model.to_owned());
        }
        if value["type"] == "message_stop" {
            self.metered.complete = true;
        }
        let usage = &message["usage"];
        let counted = &mut self.metered.usage;
        let read = |name: &str, into: &mut u64| usage[name].as_u64().inspect(|count| *into = *count).is_some();
        self.input |= read("input_tokens", &mut counted.input_tokens);
        // The figure in `message_start` is a placeholder; the one in `message_delta` is the count.
        self.output |= read("output_tokens", &mut counted.output_tokens) && value["type"] != "message_start";
        read("cache_creation_input_tokens", &mut counted.cache_write_tokens);
        read("cache_read_input_tokens", &mut counted.cache_read_tokens);
    }

    fn openai(&mut self, value: &Value) {
        if let Some(model) = value["model"].as_str() {
            self.metered.model = Some(model.to_owned());
        }
        let usage = &value["usage"];
        let (Some(prompt), Some(completion)) = (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64()) else {
            return;
        };
        let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0);
        self.metered.usage = Usage {
            input_tokens: prompt.saturating_sub(cached),
            output_tokens: completion,
            cache_write_tokens: 0,
            cache_read_tokens: cached,
        };
        (self.input, self.output) = (true, true);
    }
}

/// Bytes a token stands for at least, in the estimate of what was not reported: one, which no tokenizer goes below on
/// UTF-8 text.
pub const fn worst_case(input_bytes: usize, output_bytes: usize) -> Usage {
    Usage {
        input_tokens: input_bytes as u64,
        output_tokens: output_bytes as u64,
        cache_write_tokens: 0,
        cache_read_tokens: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"m-1\",\"usage\":{\"input_tokens\":12,\"output_tokens\":1,\"cache_read_input_tokens\":3}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":7}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

    fn metered(api: Api, streamed: bool, chunks: &[&[u8]]) -> Metered {
        let mut meter = Meter::new(api, streamed);
        chunks.iter().for_each(|chunk| meter.feed(chunk));
        meter.finish()
    }

    #[test]
    fn a_stream_is_counted_wherever_it_is_cut_into_chunks() {
        let whole = metered(Api::Anthropic, true, &[STREAM.as_bytes()]);
        assert_eq!(whole.usage, Usage { input_tokens: 12, output_tokens: 7, cache_write_tokens: 0, cache_read_tokens: 3 });
        assert_eq!((whole.model.as_deref(), whole.reported, whole.complete), (Some("m-1"), true, true));
        for cut in 0..STREAM.len() {
            let (a, b) = STREAM.as_bytes().split_at(cut);
            assert_eq!(metered(Api::Anthropic, true, &[a, b]), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_stream_that_breaks_off_is_not_complete_and_its_usage_not_reported() {
        let cut = STREAM.find("event: message_delta").unwrap();
        let broken = metered(Api::Anthropic, true, &[&STREAM.as_bytes()[..cut]]);
        assert_eq!((broken.reported, broken.complete), (false, false));
    }

    #[test]
    fn openai_counts_cached_input_apart() {
        let body = br#"{"model":"gpt","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":6}}}"#;
        let whole = metered(Api::OpenAi, false, &[body]);
        assert_eq!(whole.usage, Usage { input_tokens: 4, output_tokens: 4, cache_write_tokens: 0, cache_read_tokens: 6 });
        let mut stream = b"data: ".to_vec();
        stream.extend_from_slice(body);
        stream.extend_from_slice(b"\n\ndata: [DONE]\n\n");
        assert_eq!(metered(Api::OpenAi, true, &[&stream]), whole);
    }
}
