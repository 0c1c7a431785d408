//! What to load into a NATS server that Nightcrew does not start itself.

use std::path::Path;

use super::files::{self, FileError, Manifest};

/// Text for the administrator of that server. The seeds stay where they are.
pub(super) fn instructions(dir: &Path, manifest: &Manifest) -> Result<String, FileError> {
    let account_jwt = files::read(&dir.join("accounts/project.jwt"))?;
    let operator_jwt = files::read(&dir.join("operator.jwt"))?;
    let system_jwt = files::read(&dir.join("accounts/system.jwt"))?;
    let Manifest { project, account, system_account, account_signing_key, .. } = manifest;
    let shown = dir.display();
    let creds = dir.join("creds");
    let creds = creds.display();
    Ok(format!(
        r#"A NATS server of your own (2.14 or later, JetStream enabled) has to know the account of project `{project}`.

Account {account}
{account_jwt}

A. The server is to trust Nightcrew's operator (a server for this purpose).
   Add to its configuration, in place of an operator of its own:

     operator: "{operator_jwt}"
     system_account: "{system_account}"
     resolver {{ type: full, dir: "./resolver" }}
     resolver_preload {{
       {system_account}: "{system_jwt}"
       {account}: "{account_jwt}"
     }}
     jetstream {{ sync_interval: always }}

B. The server has an operator already. An account is signed by its operator, so import ours under yours:

     nsc import account --file {shown}/accounts/project.jwt --force
     nsc push --account {project}

   The account brings its limits and one scoped signing key a service, which carries that service's
   permissions; the issuer's own signing key is {account_signing_key}.
   The credentials in {creds} hold as they are.
   Do both again after an upgrade of Nightcrew that changes permissions (`nightcrew init` says so).

Then start Nightcrew with NIGHTCREW_NATS_URL set to the server's address. Without `sync_interval: always`
(or three replicas) an acknowledged step may be lost in a power cut.
"#
    ))
}
