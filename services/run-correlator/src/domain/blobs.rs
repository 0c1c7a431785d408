//! Which blobs a message names.

/// Length of a blob's name: SHA-256 in hex.
const NAME_CHARS: usize = 64;

/// The field of a reference.
const FIELD: &[u8] = b"\"blob\"";

/// The names in the references of a JSON text. It is searched and not decoded, so that references in kinds that this version
/// does not know are found too. A name too many only keeps a blob longer.
pub fn named_in(body: &[u8]) -> impl Iterator<Item = String> {
    body.windows(FIELD.len())
        .enumerate()
        .filter(|(_, window)| *window == FIELD)
        .filter_map(|(at, _)| name(body.get(at + FIELD.len()..)?))
}

fn name(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii_start().strip_prefix(b":")?;
    let value = value.trim_ascii_start().strip_prefix(b"\"")?;
    let (name, rest) = value.split_at_checked(NAME_CHARS)?;
    let is_name = name.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
    let name = std::str::from_utf8(name).ok()?;
    (is_name && rest.first() == Some(&b'"')).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_wherever_they_stand() {
        let [a, b] = ["a", "b"].map(|digit| digit.repeat(NAME_CHARS));
        let body = format!(r#"{{"x":[{{"blob":"{a}","bytes":1}}],"kind":"new","y":{{"bytes":2, "blob" : "{b}"}}}}"#);
        assert_eq!(named_in(body.as_bytes()).collect::<Vec<_>>(), [a, b]);
    }

    #[test]
    fn what_is_no_name_is_none() {
        for body in [
            "",
            "\"blob\"",
            "{\"blob\":\"short\"}",
            &format!("{{\"blob\":\"{}\"}}", "z".repeat(NAME_CHARS)),
            &format!("{{\"blob\":\"{}\"}}", "a".repeat(NAME_CHARS + 1)),
        ] {
            assert_eq!(named_in(body.as_bytes()).count(), 0, "{body}");
        }
    }
}
