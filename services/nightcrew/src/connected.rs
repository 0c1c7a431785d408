//! A command's way to the crew: the project's files and the bus, as the person at this terminal.
//!
//! Commands know nothing of the crew's processes. They reach it by the bus alone, as user `nightcrew`: on a laptop at the
//! address that `nightcrew up` wrote down, in a cluster at the one in `NIGHTCREW_NATS_URL`.

use std::path::PathBuf;

use anyhow::Context as _;
use kit::{
    bus::{Bus, BusConfig, ConnectError},
    clock,
    identity::{Identity, Service},
};
use schemas::{AgentName, Envelope, EventId, RunId};

use crate::{cli::Reach, endpoints::Endpoints, project::Project};

/// The command line asks for something that does not exist: the caller's mistake.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The crew, reached.
#[derive(Debug)]
pub(crate) struct Connected {
    /// The project.
    pub(crate) project: Project,
    /// The bus, as user `nightcrew`.
    pub(crate) bus: Bus,
    /// Who sits here.
    pub(crate) person: String,
}

impl Connected {
    /// Connects.
    pub(crate) async fn open(project: Project, reach: &Reach) -> anyhow::Result<Self> {
        let url = match &reach.nats_url {
            Some(url) => url.clone(),
            None => Endpoints::read(&project.state(""))?.nats_url,
        };
        let config = BusConfig {
            urls: kit::bus::urls(&url),
            creds: Some(creds(&project, reach)?),
            service: Service::Nightcrew.name().to_owned(),
            project: project.crew.project.clone(),
        };
        let bus = Bus::connect(&config).await.map_err(|error| match (&error, &reach.nats_url) {
            (ConnectError::Unreachable { .. }, None) => {
                anyhow::Error::new(error).context("no crew is up in this project: run `nightcrew up`")
            }
            _ => error.into(),
        })?;
        Ok(Self { project, bus, person: person() })
    }

    /// The agent with this name, which must be in the crew.
    pub(crate) fn known(&self, agent: &AgentName) -> Result<(), Usage> {
        let crew = &self.project.crew;
        if crew.agent(agent).is_some() {
            return Ok(());
        }
        let names = crew.agents.iter().map(|agent| agent.name.as_str()).collect::<Vec<_>>().join(", ");
        Err(Usage(format!("there is no agent {agent} in team.yaml; there are {names}")))
    }

    /// An envelope for what this person does now.
    pub(crate) fn envelope(&self, kind: &str, run: Option<RunId>) -> Envelope {
        let id = EventId::new(clock::uuid7().to_string());
        let mut envelope = Envelope::new(id, kind, self.bus.service(), clock::now());
        envelope.run_id = run;
        envelope
    }
}

fn creds(project: &Project, reach: &Reach) -> anyhow::Result<PathBuf> {
    if let Some(creds) = &reach.nats_creds {
        return Ok(creds.clone());
    }
    let identity = Identity::open(&project.identity_dir()).context("the project has no keys: run `nightcrew init`")?;
    Ok(identity.creds_file(Service::Nightcrew))
}

/// Who sits at this terminal, for people to read: whoever can read the credentials is trusted, whatever their name.
pub(crate) fn person() -> String {
    let named = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let uid = rustix::process::getuid().as_raw();
    let known = || name_of(uid, &std::fs::read_to_string("/etc/passwd").ok()?);
    named("USER").or_else(|| named("LOGNAME")).or_else(known).unwrap_or_else(|| format!("uid {uid}"))
}

/// The name of a user in a list such as `/etc/passwd`.
fn name_of(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, id) = (fields.next()?, fields.next()?, fields.next()?);
        (id.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_an_environment_has_a_name_all_the_same() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(name_of(1000, passwd).as_deref(), Some("ada"));
        assert_eq!(name_of(7, passwd), None);
    }
}
