//! The beginning of a run.

use jiff::Timestamp;
use schemas::{AgentName, Class, Decision, ProjectId, RunEvent, RunId, Trigger, event::Requested};

use super::PROJECT;

/// What a person asks of `agent` by a bare command, with nothing in it that need not be, and the run that this is.
pub fn request(agent: &str) -> (RunId, Requested) {
    let project = ProjectId::try_new(PROJECT).expect("a test's project has a name");
    let agent = AgentName::try_new(agent).expect("a test's agent has a name");
    let (trigger, rule) = (Trigger::Command { by: "ada".to_owned(), key: "1".to_owned() }, "say".to_owned());
    let run = RunId::derive(&project, &trigger, &rule, &agent);
    let request = Requested {
        project,
        agent,
        class: Class::Resident,
        trigger,
        rule,
        prompt: "do it".into(),
        context: None,
        reply_to: None,
        parent_run_id: None,
        root_run_id: run,
        depth: 0,
        deadline: Timestamp::MAX,
        work: None,
        state: None,
    };
    (run, request)
}

/// The first decision of the run of a request.
pub fn first(request: Requested) -> Decision {
    Decision { events: vec![RunEvent::Requested(Box::new(request))] }
}
