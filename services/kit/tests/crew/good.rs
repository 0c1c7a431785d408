//! Crews that are in order.

use std::{path::PathBuf, time::Duration};

use kit::crew::{Access, Crew, Harness, Login, Mode, RoomAddress, SecretRef, Source};
use schemas::{AgentName, Class, RunId};
use uuid::Uuid;

use crate::project::{CODER, LEAD, MODELS, Project, TEAM};

#[test]
fn a_crew_is_what_its_files_say() {
    let crew = Project::good().load().unwrap();
    assert_eq!(crew.project.as_str(), "demo");
    assert_eq!(crew.time_zone.iana_name(), Some("Europe/Berlin"));
    assert_eq!(crew.repositories["site"].source, Source::Path(PathBuf::from("/project/../site")));
    assert_eq!(crew.repositories["docs"].source, Source::Url("https://example.org/docs.git".to_owned()));
    assert_eq!(crew.repositories["docs"].base, "trunk");
    assert_eq!(crew.limits.deadline.0, Duration::from_mins(90));
    let names: Vec<&str> = crew.agents.iter().map(|agent| agent.name.as_str()).collect();
    assert_eq!(names, ["lead", "coder"], "in the order of team.yaml");
    let run = RunId::from_uuid(Uuid::nil());
    assert_eq!(crew.run_url.unwrap().of(&run), format!("https://crew.example.org/runs/{run}"));
}

#[test]
fn an_agent_has_its_scope_and_its_persona() {
    let crew = Project::good().load().unwrap();
    let coder = crew.agent(&AgentName::try_new("coder").unwrap()).unwrap();
    assert_eq!(coder.persona, "You code.");
    assert_eq!(coder.capabilities.harness, Harness::Native);
    assert_eq!(coder.capabilities.lifecycle, Class::Resident);
    assert_eq!(coder.capabilities.models, ["filed"]);
    assert_eq!(coder.capabilities.access("read"), Some(Access::Write));
    assert_eq!(coder.capabilities.access("shell"), Some(Access::Read));
    assert_eq!(coder.capabilities.access("git"), Some(Access::Write));
    assert_eq!(coder.capabilities.access("write"), None, "what is not granted is denied");
    let lead = crew.agent(&AgentName::try_new("lead").unwrap()).unwrap();
    assert_eq!(lead.description, "answers");
    assert_eq!(lead.capabilities.handoff_to, [AgentName::try_new("coder").unwrap()]);
    assert_eq!(lead.capabilities.budgets.run.unwrap().tokens, 50_000);
    assert!(crew.agent(&AgentName::try_new("nobody").unwrap()).is_none());
}

#[test]
fn channels_name_rooms_people_and_where_secrets_are() {
    let crew = Project::good().load().unwrap();
    let room = crew.room("crew").unwrap().clone();
    assert_eq!(room.address, RoomAddress::Alias("#crew:example.org".to_owned()));
    assert_eq!((room.mode, room.agents.len()), (Mode::All, 2));
    assert_eq!(crew.room("audit").unwrap().default, None);
    let matrix = crew.channels.matrix.unwrap();
    assert_eq!(matrix.homeserver, "https://matrix.example.org");
    assert_eq!(matrix.login, Login::Password(SecretRef::File(PathBuf::from("/project/secrets/matrix"))));
    assert_eq!(matrix.audit_room.as_deref(), Some("audit"));
    assert!(matrix.allow.iter().any(|pattern| pattern.matches("@bob:friends.example.org")));
    assert!(!matrix.allow.iter().any(|pattern| pattern.matches("@bob:example.org")));
    assert_eq!(crew.channels.terminal.unwrap().default, Some(AgentName::try_new("lead").unwrap()));
}

#[test]
fn what_is_optional_can_be_left_out() {
    let small = Project::good()
        .with(
            TEAM,
            "project: small\ntime_zone: UTC\nagents: [{name: lead}]\nlimits: {max_steps: 1, max_handoff_depth: 0, \
             max_handoffs: 0, max_repeats: 1, deadline: 1d, max_tokens: 1, max_messages_without_human: 1}\n",
        )
        .with(LEAD, "{harness: native, lifecycle: resident, models: [play], tools: [], rooms: [], repositories: []}\n");
    let crew = small.load().unwrap();
    assert!(crew.channels.matrix.is_none() && crew.channels.terminal.is_none() && crew.run_url.is_none());
}

#[test]
fn the_only_agent_of_a_room_is_its_default() {
    let edited = Project::good().edit(
        TEAM,
        "        mode: all\n        agents: [lead, coder]\n        default: lead\n",
        "        mode: all\n        agents: [lead]\n",
    );
    assert_eq!(edited.load().unwrap().room("crew").unwrap().default, Some(AgentName::try_new("lead").unwrap()));
}

#[test]
fn a_byte_order_mark_and_windows_lines_are_read() {
    let good = Project::good();
    let text = format!("\u{feff}{}", good.text(TEAM).replace('\n', "\r\n"));
    good.with(TEAM, &text).load().unwrap();
}

#[test]
fn this_projects_own_crew_is_in_order() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let crew = match Crew::load(&root) {
        Ok(crew) => crew,
        Err(problems) => panic!("{problems:#?}"),
    };
    for name in ["lead", "scout", "coder"] {
        let agent = crew.agent(&AgentName::try_new(name).unwrap()).unwrap();
        assert!(agent.persona.starts_with("# "), "{name}");
    }
    let scout = crew.agent(&AgentName::try_new("scout").unwrap()).unwrap();
    for tool in ["edit", "write", "handoff"] {
        assert_eq!(scout.capabilities.access(tool), None, "scout changes nothing");
    }
    assert_eq!(scout.capabilities.access("shell"), Some(Access::Read));
    for file in [TEAM, MODELS, LEAD, CODER, "agents/scout/capabilities.yaml"] {
        let text = std::fs::read_to_string(root.join(file)).unwrap();
        let schema = text.lines().next().unwrap().strip_prefix("# yaml-language-server: $schema=").unwrap();
        let folder = root.join(file);
        assert!(folder.parent().unwrap().join(schema).exists(), "{file} names its schema");
    }
}

#[test]
fn files_are_read_from_the_folder() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/crew/good");
    let crew = Crew::load(&root).unwrap();
    assert_eq!(crew.dir, root);
    assert_eq!(crew.agents.len(), 2);
}
