//! The stage: a homeserver, a person, two rooms, a repository with a failing test, and a project.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use super::tell;
use crate::{
    person::{NewRoom, Person},
    synapse::Synapse,
};

/// The person.
const PERSON: &str = "ada";
/// The crew's own user.
const BOT: &str = "nightcrew";

/// What the demo plays on.
pub(crate) struct Stage {
    folder: PathBuf,
    pub(crate) synapse: Synapse,
    pub(crate) person: Person,
    pub(crate) bot: String,
    pub(crate) room: String,
    pub(crate) audit: String,
}

impl Stage {
    /// Sets everything up but the crew.
    pub(crate) async fn set(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.to_owned();
        let synapse = Synapse::start_in(&folder.join("synapse")).await?;
        tell(&format!("Synapse, a real Matrix homeserver, is up at {}", synapse.url()));
        let bot_password = synapse.register(BOT).await?;
        let password = synapse.register(PERSON).await?;
        let person = Person::log_in(&synapse.url(), PERSON, &password).await?;
        let bot = synapse.user_id(BOT);
        let invite = [bot.as_str()];
        let new = |name, alias| NewRoom { name, alias: Some(alias), encrypted: true, invite: &invite };
        let room = person.create_room(new("crew", "crew")).await?;
        let audit = person.create_room(new("audit", "audit")).await?;
        tell("ada has made two encrypted rooms, #crew and #audit, and invited the crew");
        let stage = Self { folder, synapse, person, bot, room, audit };
        stage.write_project(&bot_password)?;
        stage.write_repository()?;
        Ok(stage)
    }

    /// Where everything of this demo is.
    pub(crate) fn dir(&self) -> &Path {
        &self.folder
    }

    /// The project folder.
    pub(crate) fn project(&self) -> PathBuf {
        self.dir().join("project")
    }

    /// The repository with the failing test.
    pub(crate) fn repository(&self) -> PathBuf {
        self.dir().join("demo-repo")
    }

    /// What the crew changed on its branch.
    pub(crate) fn diff(&self) -> anyhow::Result<String> {
        let branch = self.branch()?;
        self.git(&["log", "--stat", "--patch", "--format=commit %h on %D%n%an: %s%n%n%b", &format!("main..{branch}")])
    }

    /// The branch that the crew published.
    pub(crate) fn branch(&self) -> anyhow::Result<String> {
        let branches = self.git(&["for-each-ref", "--format=%(refname:short)", "refs/heads/nightcrew"])?;
        let branches: Vec<&str> = branches.lines().collect();
        match branches.as_slice() {
            [branch] => Ok((*branch).to_owned()),
            others => bail!("one branch of the crew was expected, {} are there", others.len()),
        }
    }

    /// Runs git in the repository.
    pub(crate) fn git(&self, args: &[&str]) -> anyhow::Result<String> {
        git(&self.repository(), args)
    }

    /// Runs the repository's tests on a state of it; gives whether they pass.
    pub(crate) fn tests_pass(&self, revision: &str) -> anyhow::Result<bool> {
        let checkout = TempDir::with_prefix("nightcrew-demo-check-")?;
        let path = checkout.path().to_string_lossy().into_owned();
        self.git(&["worktree", "add", "--quiet", "--detach", "--force", &path, revision])?;
        let output = Command::new("python3").args(["-m", "unittest"]).current_dir(checkout.path()).output()?;
        self.git(&["worktree", "remove", "--force", &path])?;
        Ok(output.status.success())
    }

    fn write_project(&self, bot_password: &str) -> anyhow::Result<()> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let project = self.project();
        copy_tree(&source.join("agents"), &project.join("agents"))?;
        std::fs::copy(source.join("models.yaml"), project.join("models.yaml"))?;
        std::fs::write(project.join("team.yaml"), self.team())?;
        std::fs::write(project.join("scenario.yaml"), rehearsal::demo::SCENARIO)?;
        std::fs::write(project.join("matrix-password"), bot_password)?;
        Ok(())
    }

    fn team(&self) -> String {
        format!(
            r#"project: demo
time_zone: UTC
agents:
  - {{ name: lead, description: "takes requests, plans, hands work on and answers" }}
  - {{ name: scout, description: "reads code, runs tests and finds causes; changes nothing" }}
  - {{ name: coder, description: "edits, tests and commits on a branch" }}
repositories:
  nightcrew: {{ source: ../demo-repo, base: main }}
channels:
  terminal: {{ allow: local, agents: [lead, scout, coder], default: lead }}
  matrix:
    homeserver: {url}
    user: "{bot}"
    password_file: matrix-password
    allow: ["{ada}"]
    audit_room: audit
    rooms:
      - {{ name: crew, id: "{room}", mode: mention, agents: [lead, scout, coder], default: lead }}
      - {{ name: audit, id: "{audit}", mode: listen }}
limits:
  max_steps: 60
  max_handoff_depth: 2
  max_handoffs: 8
  max_repeats: 3
  deadline: 30m
  max_tokens: 2000000
  max_messages_without_human: 20
"#,
            url = self.synapse.url(),
            bot = self.bot,
            ada = self.person.id(),
            room = self.room,
            audit = self.audit,
        )
    }

    fn write_repository(&self) -> anyhow::Result<()> {
        let repository = self.repository();
        std::fs::create_dir_all(&repository)?;
        for (path, text) in rehearsal::demo::REPOSITORY {
            std::fs::write(repository.join(path), text)?;
        }
        self.git(&["init", "--quiet", "--initial-branch", "main"])?;
        self.git(&["add", "--all"])?;
        let author = ["-c", "user.name=ada", "-c", "user.email=ada@demo.invalid"];
        self.git(&[&author[..], &["commit", "--quiet", "--message", rehearsal::demo::FIRST_COMMIT]].concat())?;
        ensure!(!self.tests_pass("main")?, "the demo's repository should have a failing test");
        tell("a small git repository has a failing test");
        Ok(())
    }
}

pub(crate) fn git(dir: &Path, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git")
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .context("git can not be run")?;
    ensure!(output.status.success(), "git {args:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

pub(crate) fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
