//! The part of `team.yaml` that says where people reach the crew.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use schemas::AgentName;
use serde::Deserialize;

use super::{SecretRef, shape};

/// Where people reach the crew, as it is written.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(super) struct ChannelsFile {
    /// A Matrix homeserver.
    #[serde(default)]
    #[schemars(with = "MatrixFile")]
    matrix: Option<MatrixFile>,
    /// The command line: `nightcrew say`.
    #[serde(default)]
    #[schemars(with = "Terminal")]
    terminal: Option<Terminal>,
}

/// A Matrix homeserver, as it is written. One of the four keys that name a secret is given.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Matrix")]
struct MatrixFile {
    /// Address of the homeserver.
    #[schemars(with = "shape::HttpUrl")]
    homeserver: String,
    /// The user that the crew speaks as.
    #[schemars(with = "shape::UserId")]
    user: String,
    /// The file with its password, relative to the project folder.
    #[serde(default)]
    #[schemars(with = "shape::SecretPath")]
    password_file: Option<PathBuf>,
    /// The environment variable with its password.
    #[serde(default)]
    #[schemars(with = "shape::EnvName")]
    password_env: Option<String>,
    /// The file with its access token, relative to the project folder.
    #[serde(default)]
    #[schemars(with = "shape::SecretPath")]
    token_file: Option<PathBuf>,
    /// The environment variable with its access token.
    #[serde(default)]
    #[schemars(with = "shape::EnvName")]
    token_env: Option<String>,
    /// Rooms that the crew is in.
    #[schemars(length(min = 1))]
    rooms: Vec<RoomFile>,
    /// People whom the crew obeys: user ids in which `*` stands for anything but a colon.
    #[schemars(length(min = 1))]
    allow: Vec<UserPattern>,
    /// The room, by its name here, that gets one line about each run.
    #[serde(default)]
    #[schemars(with = "shape::Label")]
    audit_room: Option<String>,
}

/// A room, as it is written. Either `id` or `alias` is given.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Room")]
struct RoomFile {
    /// The name that capabilities use.
    #[schemars(with = "shape::Label")]
    name: String,
    /// The room's id, such as "!abc:example.org".
    #[serde(default)]
    #[schemars(with = "shape::RoomId")]
    id: Option<String>,
    /// The room's alias, such as "#crew:example.org".
    #[serde(default)]
    #[schemars(with = "shape::RoomAlias")]
    alias: Option<String>,
    /// What wakes an agent.
    mode: Mode,
    /// Agents that can be woken here.
    #[serde(default)]
    #[schemars(with = "Vec<shape::Label>")]
    agents: Vec<AgentName>,
    /// The agent that a message wakes when it names none.
    #[serde(default)]
    #[schemars(with = "shape::Label")]
    default: Option<AgentName>,
}

/// Where people reach the crew.
#[derive(Debug, Clone)]
pub struct Channels {
    /// A Matrix homeserver.
    pub matrix: Option<Matrix>,
    /// The command line.
    pub terminal: Option<Terminal>,
}

/// A Matrix homeserver.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Address of the homeserver, without a slash at its end.
    pub homeserver: String,
    /// The user that the crew speaks as.
    pub user: String,
    /// How that user logs in.
    pub login: Login,
    /// Rooms that the crew is in, never empty; names, ids and aliases are each unique.
    pub rooms: Vec<Room>,
    /// People whom the crew obeys.
    pub allow: Vec<UserPattern>,
    /// The name of the room that gets one line about each run.
    pub audit_room: Option<String>,
}

/// How a user logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// With a password.
    Password(SecretRef),
    /// With an access token.
    Token(SecretRef),
}

/// A room that the crew is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The name that capabilities use.
    pub name: String,
    /// Which room it is.
    pub address: RoomAddress,
    /// What wakes an agent.
    pub mode: Mode,
    /// Agents that can be woken here; empty only with [`Mode::Listen`].
    pub agents: Vec<AgentName>,
    /// The agent that a message wakes when it names none: the one that was chosen, or the only one. Always there with
    /// [`Mode::All`].
    pub default: Option<AgentName>,
}

/// Which room.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RoomAddress {
    /// By its id, `!...`.
    Id(String),
    /// By an alias, `#...:server`.
    Alias(String),
}

/// What wakes an agent in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Mode {
    /// A message that mentions the crew or one of its agents.
    Mention,
    /// Any message.
    All,
    /// Nothing; agents only speak here.
    Listen,
}

/// The command line as a channel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    /// Who may use it.
    pub allow: TerminalAllow,
    /// Agents that can be woken from it.
    #[schemars(length(min = 1), with = "Vec<shape::Label>")]
    pub agents: Vec<AgentName>,
    /// The agent that a message wakes when it names none: the one that was chosen, or the only one.
    #[serde(default)]
    #[schemars(with = "shape::Label")]
    pub default: Option<AgentName>,
}

/// Who may use the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum TerminalAllow {
    /// Whoever can use the account that the crew runs under.
    Local,
}

/// A Matrix user, or all whose ids fit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct UserPattern(#[schemars(with = "shape::UserPattern")] String);

impl UserPattern {
    /// Takes a pattern such as `@*:example.org`.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// Whether `user` fits. A `*` stands for any characters but the colon, so a pattern for one server never admits
    /// another one; there are no other wildcards, and case counts.
    ///
    /// ```
    /// let crew = kit::crew::UserPattern::new("@*:example.org");
    /// assert!(crew.matches("@ann:example.org"));
    /// assert!(!crew.matches("@ann:evil.example.org"));
    /// assert!(!crew.matches("@ann:evil:example.org"));
    /// ```
    pub fn matches(&self, user: &str) -> bool {
        let (mut pattern, mut user) = (self.0.split(':'), user.split(':'));
        loop {
            match (pattern.next(), user.next()) {
                (None, None) => return true,
                (Some(pattern), Some(user)) if wildcard(pattern, user) => {}
                _ => return false,
            }
        }
    }
}

/// Whether `text` fits `pattern`, in which `*` stands for any characters.
fn wildcard(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(end)
}

impl ChannelsFile {
    /// Nothing only when a secret or an address is missing, which the checks refuse.
    pub(super) fn resolve(self, dir: &Path) -> Option<Channels> {
        let matrix = match self.matrix {
            Some(file) => Some(file.resolve(dir)?),
            None => None,
        };
        let terminal = self.terminal.map(|mut terminal| {
            terminal.default = terminal.default.or_else(|| only(&terminal.agents));
            terminal
        });
        Some(Channels { matrix, terminal })
    }
}

impl MatrixFile {
    fn resolve(self, dir: &Path) -> Option<Matrix> {
        let password = SecretRef::of(dir, self.password_env, self.password_file).map(Login::Password);
        let token = SecretRef::of(dir, self.token_env, self.token_file).map(Login::Token);
        Some(Matrix {
            homeserver: self.homeserver.trim_end_matches('/').to_owned(),
            user: self.user,
            login: password.or(token)?,
            rooms: self.rooms.into_iter().map(RoomFile::resolve).collect::<Option<_>>()?,
            allow: self.allow,
            audit_room: self.audit_room,
        })
    }
}

impl RoomFile {
    fn resolve(self) -> Option<Room> {
        let address = self.id.map(RoomAddress::Id).or_else(|| self.alias.map(RoomAddress::Alias))?;
        let default = self.default.or_else(|| only(&self.agents));
        Some(Room { name: self.name, address, mode: self.mode, agents: self.agents, default })
    }
}

/// The only item of a list of one.
fn only(agents: &[AgentName]) -> Option<AgentName> {
    match agents {
        [one] => Some(one.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stays_on_its_side_of_the_colon() {
        for (pattern, user, fits) in [
            ("@ann:x.org", "@ann:x.org", true),
            ("@ann:x.org", "@Ann:x.org", false),
            ("@a*n:x.org", "@an:x.org", true),
            ("@a*n:x.org", "@a:x.org", false),
            ("@*:*.x.org", "@bob:chat.x.org", true),
            ("@*:*.x.org", "@bob:x.org", false),
            ("@*:x.org", "@bob:x.org:8448", false),
            ("@*:x.org:8448", "@bob:x.org:8448", true),
            ("@a*b*c:x.org", "@a1b2b3c:x.org", true),
            ("@a*b*c:x.org", "@acb:x.org", false),
            ("@ab*ba:x.org", "@aba:x.org", false),
            ("@*:*", "@bob", false),
        ] {
            assert_eq!(UserPattern::new(pattern).matches(user), fits, "{pattern} {user}");
        }
    }
}
