//! What to load into a NATS server that Nightcrew does not start itself.

use std::path::{Path, PathBuf};

use super::config::Accounts;
use super::files::Manifest;

/// The file with what the server has to know.
const FILE: &str = "external.conf";

/// Where that file is.
pub(super) fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// Settings for a server that has no operator yet. Nothing in them is secret.
pub(super) fn settings(accounts: &Accounts<'_>) -> String {
    format!(
        r#"# Written by `nightcrew init` and again by each later one: changes made here are lost.
# For a NATS server of your own: include this file in its configuration. Nothing in it is secret.

{}
resolver {{
  type: full
  dir: "./resolver"
}}
{}"#,
        accounts.trust(),
        accounts.preload(),
    )
}

/// Text for the administrator of that server.
pub(super) fn instructions(dir: &Path, manifest: &Manifest) -> String {
    let Manifest { project, account, account_signing_key, .. } = manifest;
    let (shown, file, creds) = (dir.display(), file(dir), dir.join("creds"));
    let (file, creds) = (file.display(), creds.display());
    format!(
        r#"A NATS server of your own (2.14 or later, JetStream enabled) has to know the account of project `{project}`,
{account}.

A. The server has no operator yet. Copy this file beside its configuration (nothing in it is secret):

     {file}

   and add to that configuration:

     include "{FILE}"
     jetstream {{ sync_interval: always }}

B. The server has an operator already. An account is signed by its operator, so import ours under yours:

     nsc import account --file {shown}/accounts/project.jwt --force
     nsc push --account {project}

   The account brings its limits and one scoped signing key a service, which carries that service's
   permissions; the issuer's own signing key is {account_signing_key}.

The credentials in {creds} hold as they are. Load the account again
whenever `nightcrew init` says that permissions have changed. Without `sync_interval: always` (or three replicas)
an acknowledged step may be lost in a power cut.
"#
    )
}
