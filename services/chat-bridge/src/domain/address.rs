//! Whom a message is addressed to.
//!
//! The whole crew shares one account, so agents are addressed by name:
//!
//! - `@lead` anywhere in the text, as a word of its own;
//! - `lead:` or `lead, scout:` at the beginning, after a mention of the account if there is one;
//! - a mention of the account followed by names: `crew lead, please look`.
//!
//! Quoted lines, code spans and code blocks address nobody: they show what somebody else wrote. Names are compared
//! without case. `@lead:example.org` is a person's full id and no agent.

use std::collections::BTreeSet;

use schemas::AgentName;

/// The agents among `known` that `body` names, in no order that means anything.
///
/// `account` holds the ways in which the crew's own account may be written in front of a name: its id and its display
/// name.
pub fn addressed(body: &str, known: &BTreeSet<AgentName>, account: &[&str]) -> BTreeSet<AgentName> {
    let text = without_quotes_and_code(body);
    let mut found = at_mentions(&text, known);
    let (opening, after_account) = without_account(text.trim_start(), account);
    found.extend(leading_names(opening, known, after_account));
    found
}

/// Whether `body` writes one of the account's names where a person addresses somebody, for clients that do not say so
/// in the event.
pub fn names_account(body: &str, account: &[&str]) -> bool {
    let text = without_quotes_and_code(body);
    let (_, found) = without_account(text.trim_start(), account);
    found || account.iter().any(|name| name.starts_with('@') && contains_word(&text, name))
}

/// Blanks out fenced blocks, inline code and quoted lines.
fn without_quotes_and_code(body: &str) -> String {
    let mut fence: Option<&str> = None;
    let mut kept = String::with_capacity(body.len());
    for line in body.lines() {
        let start = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| start.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) if !start.starts_with('>') => kept.push_str(&without_code_spans(line)),
            _ => {}
        }
        kept.push('\n');
    }
    kept
}

fn without_code_spans(line: &str) -> String {
    let pieces: Vec<&str> = line.split('`').collect();
    // An odd number of backticks leaves the last one open: what follows it is text.
    let open = pieces.len().is_multiple_of(2);
    let last = pieces.len() - 1;
    pieces
        .iter()
        .enumerate()
        .filter(|(n, _)| n.is_multiple_of(2) || (open && *n == last))
        .map(|(_, piece)| *piece)
        .collect::<Vec<_>>()
        .join(" ")
}

fn at_mentions(text: &str, known: &BTreeSet<AgentName>) -> BTreeSet<AgentName> {
    text.match_indices('@')
        .filter(|(at, _)| !text[..*at].chars().next_back().is_some_and(is_name_char))
        .filter_map(|(at, _)| {
            let rest = &text[at + 1..];
            let name = leading_name(rest);
            (!is_full_id(&rest[name.len()..])).then(|| lookup(name, known)).flatten()
        })
        .collect()
}

/// Whether a name is followed by `:server`, which makes it a person's id.
fn is_full_id(after: &str) -> bool {
    let Some(server) = after.strip_prefix(':') else {
        return false;
    };
    let server: String =
        server.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':')).collect();
    let host = server.split(':').next().unwrap_or_default();
    host == "localhost" || host.trim_end_matches('.').contains('.')
}

/// The text after a mention of the account at its beginning, and whether there was one.
fn without_account<'a>(text: &'a str, account: &[&str]) -> (&'a str, bool) {
    for name in account.iter().filter(|name| !name.is_empty()) {
        let bare = text.strip_prefix('@').filter(|_| !name.starts_with('@')).unwrap_or(text);
        if let Some(prefix) = bare.get(..name.len())
            && prefix.eq_ignore_ascii_case(name)
            && !bare[name.len()..].chars().next().is_some_and(is_name_char)
        {
            return (bare[name.len()..].trim_start_matches([':', ',']).trim_start(), true);
        }
    }
    (text, false)
}

/// Names at the beginning, separated by commas or `and`. Without the account in front they need a colon behind them.
fn leading_names(text: &str, known: &BTreeSet<AgentName>, after_account: bool) -> BTreeSet<AgentName> {
    let mut found = BTreeSet::new();
    let mut rest = text;
    loop {
        let name = leading_name(rest.trim_start_matches('@'));
        let after = &rest.trim_start_matches('@')[name.len()..];
        let Some(agent) = lookup(name, known) else {
            break;
        };
        found.insert(agent);
        let separated = after.trim_start_matches([' ', '\t']);
        if separated.starts_with(':') {
            return found;
        }
        let next = separated
            .strip_prefix(',')
            .or_else(|| separated.strip_prefix("and "))
            .or_else(|| separated.strip_prefix('&'));
        match next {
            Some(next) => rest = next.trim_start_matches([' ', '\t']),
            None => break,
        }
    }
    if after_account { found } else { BTreeSet::new() }
}

fn leading_name(text: &str) -> &str {
    let end = text.find(|c: char| !is_name_char(c)).unwrap_or(text.len());
    &text[..end]
}

fn lookup(name: &str, known: &BTreeSet<AgentName>) -> Option<AgentName> {
    AgentName::try_new(name.to_ascii_lowercase()).ok().filter(|name| known.contains(name))
}

fn contains_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| !text[at + word.len()..].chars().next().is_some_and(is_name_char))
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '-' || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: [&str; 2] = ["@crew:example.org", "Night Crew"];

    fn names(body: &str) -> Vec<String> {
        let known = ["lead", "scout", "coder"].map(|name| AgentName::try_new(name).unwrap()).into();
        addressed(body, &known, &ACCOUNT).into_iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn an_at_sign_names_an_agent_anywhere() {
        assert_eq!(names("please, @lead, look"), ["lead"]);
        assert_eq!(names("@Lead look"), ["lead"]);
        assert_eq!(names("(@lead)"), ["lead"]);
        assert_eq!(names("@lead:fix it"), ["lead"]);
        assert_eq!(names("@lead: fix it"), ["lead"]);
    }

    #[test]
    fn two_names_are_two_agents() {
        assert_eq!(names("@lead and @scout, compare"), ["lead", "scout"]);
        assert_eq!(names("lead, scout: compare"), ["lead", "scout"]);
        assert_eq!(names("Night Crew: lead and coder, compare"), ["coder", "lead"]);
    }

    #[test]
    fn a_bare_name_counts_only_as_an_address() {
        assert_eq!(names("lead: fix it"), ["lead"]);
        assert_eq!(names("Lead: fix it"), ["lead"]);
        assert!(names("lead the way").is_empty());
        assert!(names("we follow lead: always").is_empty());
        assert_eq!(names("Night Crew lead please"), ["lead"]);
        assert_eq!(names("@crew:example.org scout, please"), ["scout"]);
    }

    #[test]
    fn other_things_with_an_at_sign_name_nobody() {
        assert!(names("mail me@lead.example").is_empty());
        assert!(names("ask @lead:example.org, the person").is_empty());
        assert!(names("ask @lead:localhost:8008").is_empty());
        assert!(names("@leader").is_empty());
        assert!(names("@nobody").is_empty());
    }

    #[test]
    fn quotes_and_code_name_nobody() {
        assert!(names("> @lead did it\nwell done").is_empty());
        assert!(names("run `npm i @lead` now").is_empty());
        assert!(names("```\n@lead\n```\nlook at this").is_empty());
        assert_eq!(names("```\n@lead\n```\n@scout look"), ["scout"]);
        assert_eq!(names("a ` and @lead"), ["lead"]);
    }

    #[test]
    fn the_account_is_recognised_by_id_and_by_name() {
        assert!(names_account("Night Crew, hello", &ACCOUNT));
        assert!(names_account("hello @crew:example.org", &ACCOUNT));
        assert!(!names_account("the Night Crew is asleep", &ACCOUNT));
        assert!(!names_account("hello @crew:example.orgy", &ACCOUNT));
    }
}
