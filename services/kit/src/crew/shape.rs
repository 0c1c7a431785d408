//! Shapes of text in a crew's files. They exist in JSON Schemas only; the values themselves are parsed into their types.

use std::{borrow::Cow, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

macro_rules! shape {
    ($(#[$meta:meta])* $name:ident, $pattern:expr, $meaning:expr $(, $key:literal: $value:expr)*) => {
        $(#[$meta])*
        pub(super) struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "pattern": $pattern,
                    "patternErrorMessage": $meaning
                    $(, $key: $value)*
                })
            }
        }
    };
}

const LABEL: &str = "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$";
const LABEL_MEANING: &str = "a name is 1 to 63 of a-z, 0-9 and inner dashes, and begins with a letter";

shape! {
    /// A name that also serves as a folder, a subject token and a Kubernetes object.
    Label, LABEL, LABEL_MEANING
}
shape! {
    /// The name of an environment variable. Somebody may have put the secret itself here.
    EnvName, "^[A-Z_][A-Z0-9_]*$", "the name of an environment variable in capitals, not its value", "x-secret": true
}
shape! {
    /// The path of a file with a secret in it. Somebody may have put the secret itself here.
    SecretPath, r"^[^\s]+$", "the path of a file that holds the secret, and nothing else", "x-secret": true
}
shape! {
    /// The address of an HTTP server, without credentials, query or fragment.
    HttpUrl, r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$", "an http:// or https:// address without credentials or query"
}
shape! {
    /// Where a run can be looked at.
    RunUrl, r"^https?://[^\s/@]+/[^\s@]*\{run_id\}[^\s@]*$", "an http:// or https:// address with {run_id} in its path"
}
shape! {
    /// Where a repository comes from.
    RepositorySource, r"^(?!.*://[^/\s]*:[^/\s]*@)\S+$", "a path or an address, without a password in it", "x-secret": true
}
shape! {
    /// A Matrix user.
    UserId, r"^@[^\s:]+:\S+$", "a Matrix user id such as @crew:example.org, in quotes"
}
shape! {
    /// A Matrix user, or several.
    UserPattern, r"^@[^\s:]+:\S+$", "a Matrix user id such as @ann:example.org, in quotes; * stands for anything but a colon"
}
shape! {
    /// A Matrix room id; since room version 12 it has no server part.
    RoomId, r"^!\S+$", "a Matrix room id begins with ! and stands in quotes"
}
shape! {
    /// A Matrix room alias.
    RoomAlias, r"^#[^\s:]+:\S+$", "a Matrix room alias such as #crew:example.org, in quotes"
}
shape! {
    /// A length of time in one unit.
    Duration, "^[1-9][0-9]{0,5}[smhd]$", "a whole number and a unit: 90s, 30m, 2h or 1d"
}
shape! {
    /// Dollars, exactly.
    Dollars, r"^[0-9]{1,6}(\.[0-9]{1,6})?$", "dollars such as \"3.75\", in quotes, with at most six decimals"
}

/// A mapping with [`Label`]s as keys.
pub(super) struct ByLabel<V>(PhantomData<V>);

impl<V: JsonSchema> JsonSchema for ByLabel<V> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("ByLabel_{}", V::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let values: Value = generator.subschema_for::<V>().into();
        let keys = json!({"pattern": LABEL, "patternErrorMessage": LABEL_MEANING});
        json_schema!({"type": "object", "additionalProperties": values, "propertyNames": keys})
    }
}
