//! What somebody probably meant to write.

/// At most this many candidates in a hint: more is a list, not a suggestion.
const MAX_CANDIDATES: usize = 2;

/// Shortest beginning that still says something: `key` for `key_env`, but not `k`.
const MIN_PREFIX: usize = 3;

/// `did you mean "x"?` for the known names nearest to `given`, or nothing when none is near.
///
/// ```
/// assert_eq!(kit::yaml::suggestion("projct", ["project", "agents"]).as_deref(), Some("did you mean \"project\"?"));
/// assert_eq!(kit::yaml::suggestion("colour", ["project", "agents"]), None);
/// ```
pub fn suggestion<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut near: Vec<(usize, &str)> =
        known.into_iter().filter_map(|name| distance(given, name).map(|d| (d, name))).collect();
    near.sort_unstable();
    let best = near.first()?.0;
    let names: Vec<String> =
        near.iter().filter(|(d, _)| *d == best).take(MAX_CANDIDATES).map(|(_, name)| format!("{name:?}")).collect();
    Some(format!("did you mean {}?", names.join(" or ")))
}

/// How far `name` is from `given`; nothing when it is too far to be what was meant.
fn distance(given: &str, name: &str) -> Option<usize> {
    let (given, name) = (given.to_lowercase(), name.to_lowercase());
    if given.len() >= MIN_PREFIX && name.starts_with(&given) {
        return Some(1);
    }
    let distance = strsim::damerau_levenshtein(&given, &name);
    let limit = name.chars().count().div_ceil(3).min(3);
    (distance <= limit).then_some(distance)
}
