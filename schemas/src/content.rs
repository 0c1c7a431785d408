//! What models and tools say: content blocks, and text that is kept inline or in the blob store.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::kinds::unknown_is_none_of;

/// Text up to this many bytes stays inside a message; longer text goes to the object store `blobs`.
///
/// 64 KiB keeps a decision with several parts well below NATS' default `max_payload` of 1 MiB.
pub const MAX_INLINE_BYTES: usize = 64 * 1024;

/// Names a blob by its content.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct BlobRef {
    /// SHA-256 of the content, lower-case hex; also the object's name in `blobs`.
    pub blob: String,
    /// Size of the content in bytes.
    pub bytes: u64,
    /// The beginning of a text, for timelines; absent for binary content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
}

/// Text inline, or the blob that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Text {
    /// The text itself.
    Inline(String),
    /// Where the text is.
    Blob(BlobRef),
}

impl Text {
    /// The text, or the preview of a blob.
    pub fn preview(&self) -> &str {
        match self {
            Self::Inline(text) => text,
            Self::Blob(blob) => blob.preview.as_deref().unwrap_or_default(),
        }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Inline(text)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::Inline(text.to_owned())
    }
}

/// One block of a model's answer. Field names follow the Anthropic Messages API; the OpenAI harness maps onto it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(transform = unknown_is_none_of("type", Block::TYPES))]
pub enum Block {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
    /// A model's thinking, passed back unchanged where the API asks for it.
    Thinking {
        /// The thinking.
        thinking: String,
        /// The provider's signature over it.
        #[serde(default)]
        signature: String,
    },
    /// A call of a tool.
    ToolUse {
        /// The provider's id of the call.
        id: String,
        /// The tool's name.
        name: String,
        /// The arguments, a JSON object.
        input: serde_json::Value,
    },
    /// A block that this build does not know; passed back unchanged.
    #[serde(untagged)]
    Other(serde_json::Value),
}

impl Block {
    /// The types that this build knows.
    pub const TYPES: &'static [&'static str] = &["text", "thinking", "tool_use"];
}

/// The tag decides, as in [`crate::kinds`]: a known type that is malformed is an error and no [`Block::Other`].
impl<'de> Deserialize<'de> for Block {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum Known {
            Text {
                text: String,
            },
            Thinking {
                thinking: String,
                #[serde(default)]
                signature: String,
            },
            ToolUse {
                id: String,
                name: String,
                input: serde_json::Value,
            },
        }

        let value = serde_json::Value::deserialize(deserializer)?;
        let Some(kind) = value.get("type").and_then(serde_json::Value::as_str) else {
            return Err(D::Error::missing_field("type"));
        };
        if !Self::TYPES.contains(&kind) {
            return Ok(Self::Other(value));
        }
        let kind = kind.to_owned();
        let known =
            serde_json::from_value(value).map_err(|error| D::Error::custom(format!("block type {kind:?}: {error}")))?;
        Ok(match known {
            Known::Text { text } => Self::Text { text },
            Known::Thinking { thinking, signature } => Self::Thinking { thinking, signature },
            Known::ToolUse { id, name, input } => Self::ToolUse { id, name, input },
        })
    }
}

/// A kind that this build does not know, kept whole so that a reader can show it and a writer can pass it on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UnknownKind {
    /// The kind's name.
    pub kind: String,
    /// Every other field as it came.
    #[serde(flatten)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}
