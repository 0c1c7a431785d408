//! One macro: a tagged enum whose unknown kinds survive.
//!
//! `#[serde(untagged)]` alone would swallow a *malformed* known kind into the unknown variant. Here the tag decides: a
//! known kind must decode or is an error, an unknown kind is kept whole.

/// Declares an enum tagged by `kind`, with `KINDS`, `kind()` and an `Unknown` variant that keeps the value as it came.
macro_rules! kinds {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$vmeta:meta])* $variant:ident($body:ty) = $kind:literal ),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, schemars::JsonSchema)]
        #[serde(tag = "kind")]
        #[schemars(transform = crate::kinds::unknown_is_none_of("kind", $name::KINDS))]
        pub enum $name {
            $( $(#[$vmeta])* #[serde(rename = $kind)] $variant($body), )+
            /// A kind that this build does not know, kept as it came.
            #[serde(untagged)]
            Unknown(crate::content::UnknownKind),
        }

        impl $name {
            /// Every kind that this build knows.
            pub const KINDS: &'static [&'static str] = &[$($kind),+];

            /// The kind's name as it stands on the wire.
            pub fn kind(&self) -> &str {
                match self {
                    $( Self::$variant(_) => $kind, )+
                    Self::Unknown(unknown) => &unknown.kind,
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use serde::de::Error as _;
                let mut fields = serde_json::Map::deserialize(deserializer)?;
                let kind = match fields.get("kind") {
                    Some(serde_json::Value::String(kind)) => kind.clone(),
                    _ => return Err(D::Error::missing_field("kind")),
                };
                match kind.as_str() {
                    $( $kind => {
                        fields.remove("kind");
                        serde_json::from_value(serde_json::Value::Object(fields))
                            .map(Self::$variant)
                            .map_err(|error| D::Error::custom(format!("kind {:?}: {error}", $kind)))
                    } )+
                    _ => {
                        fields.remove("kind");
                        Ok(Self::Unknown(crate::content::UnknownKind { kind, fields }))
                    }
                }
            }
        }
    };
}
pub(crate) use kinds;

/// Makes the last alternative of an enum's schema, that of unknown kinds, refuse `known` ones, as decoding does.
///
/// Without this every malformed event would validate as an unknown one.
pub(crate) fn unknown_is_none_of(
    tag: &'static str,
    known: &'static [&'static str],
) -> impl FnMut(&mut schemars::Schema) {
    move |schema| {
        let alternatives = schema.get_mut("anyOf").and_then(serde_json::Value::as_array_mut);
        let Some(unknown) = alternatives.and_then(|all| all.last_mut()) else {
            return;
        };
        // A schema that allows everything is written `true`.
        if !unknown.is_object() {
            *unknown = serde_json::json!({});
        }
        unknown["type"] = "object".into();
        unknown["properties"] = serde_json::json!({ tag: { "type": "string", "not": { "enum": known } } });
        unknown["required"] = serde_json::json!([tag]);
    }
}
