//! What the project's folder has to have: the crew's files, its keys, keys of models, a way into Matrix.

use std::{os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use kit::{
    class::chain,
    crew::{Login, SecretRef, Upstream},
    identity::{Identity, Service},
};
use schemas::cli::Examined;

use super::{bad, good, listed, weak};
use crate::project::Project;

/// How long a homeserver may take to answer.
const HOMESERVER_WITHIN: Duration = Duration::from_secs(5);

/// The crew's files, which are in order once there is a project.
pub(super) fn files(project: &Project) -> Examined {
    let crew = &project.crew;
    let agents: Vec<_> = crew.agents.iter().map(|agent| agent.name.to_string()).collect();
    let repositories: Vec<_> = crew.repositories.keys().cloned().collect();
    good(
        "crew files",
        format!("project {}, agents: {}, repositories: {}", crew.project, listed(&agents), listed(&repositories)),
    )
}

/// What is wrong with them, all of it.
pub(super) fn broken(error: &anyhow::Error) -> Examined {
    bad("crew files", format!("{error:#}"), "each line names the file, the line and the column")
}

/// Keys and credentials.
pub(super) fn keys(project: &Project) -> Examined {
    const CHECK: &str = "keys";
    let dir = project.identity_dir();
    let identity = match Identity::open(&dir) {
        Ok(identity) => identity,
        Err(_) if !dir.exists() => {
            return weak(CHECK, "there are none yet", "`nightcrew up` makes them, and so does `nightcrew init`");
        }
        Err(error) => {
            return bad(CHECK, chain(&error), format!("move {} away and run `nightcrew init`", dir.display()));
        }
    };
    let credentials = Service::ALL.map(|service| identity.creds_file(service));
    let files = credentials.into_iter().chain([identity.bearer_key_file()]);
    let mut problems = Vec::new();
    for file in files {
        match mode(&file) {
            Err(error) => problems.push(format!("{}: {error}", file.display())),
            Ok(mode) if mode & 0o077 != 0 => {
                problems.push(format!("{} can be read by others: mode {mode:03o}", file.display()));
            }
            Ok(_) => {}
        }
    }
    if problems.is_empty() {
        return good(CHECK, format!("in {}, for nobody else to read", dir.display()));
    }
    bad(CHECK, problems.join("\n"), format!("`nightcrew init` writes what is missing; chmod -R go= {}", dir.display()))
}

fn mode(file: &Path) -> std::io::Result<u32> {
    Ok(std::fs::metadata(file)?.permissions().mode() & 0o777)
}

/// Where each model route leads.
pub(super) fn routes(project: &Project) -> Vec<Examined> {
    let models = &project.crew.models;
    let env = |name: &str| std::env::var(name).ok();
    let examined = models.routes.iter().map(|(name, route)| {
        let check = format!("model {name}");
        match models.effective(name, env) {
            Ok(Upstream::Real { model, base_url, key, .. }) => {
                let key = if key.is_some() { "its key is there" } else { "needs no key" };
                good(&check, format!("{model} at {base_url}, {key}"))
            }
            Ok(Upstream::Rehearsal) => match &route.key {
                Some(key) => weak(
                    &check,
                    "no key: the rehearsal model plays it, and no real model is asked",
                    format!("{} for {}", set(key), route.model),
                ),
                None => good(&check, "the rehearsal model, as it says"),
            },
            Err(error) => bad(&check, chain(&error), "make the key readable, or take it out of models.yaml"),
        }
    });
    examined.collect()
}

fn set(secret: &SecretRef) -> String {
    match secret {
        SecretRef::Env(name) => format!("set {name}"),
        SecretRef::File(path) => format!("write it into {}", path.display()),
    }
}

/// The way into Matrix, when the crew has one.
pub(super) async fn matrix(project: &Project) -> Vec<Examined> {
    let Some(matrix) = &project.crew.channels.matrix else { return Vec::new() };
    let (Login::Password(secret) | Login::Token(secret)) = &matrix.login;
    let login = match secret.read(|name| std::env::var(name).ok()) {
        Ok(Some(_)) => good("matrix login", format!("{}, its secret is there", matrix.user)),
        Ok(None) => weak(
            "matrix login",
            format!("there is no secret for {}", matrix.user),
            format!("{}, or take matrix out of team.yaml", set(secret)),
        ),
        Err(error) => bad("matrix login", chain(&error), "make the secret readable"),
    };
    vec![homeserver(&matrix.homeserver).await, login]
}

async fn homeserver(url: &str) -> Examined {
    const CHECK: &str = "matrix homeserver";
    let asked = async {
        let client = reqwest::Client::builder().timeout(HOMESERVER_WITHIN).build()?;
        client.get(format!("{url}/_matrix/client/versions")).send().await?.error_for_status()?.bytes().await
    };
    match asked.await {
        Ok(body)
            if serde_json::from_slice::<serde_json::Value>(&body).is_ok_and(|body| body.get("versions").is_some()) =>
        {
            good(CHECK, url)
        }
        Ok(_) => weak(
            CHECK,
            format!("what answers at {url} is no homeserver"),
            "correct channels.matrix.homeserver in team.yaml",
        ),
        Err(error) => {
            weak(CHECK, format!("{url} does not answer: {}", chain(&error)), "start it; rooms are silent until then")
        }
    }
}
