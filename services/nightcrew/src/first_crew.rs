//! The crew that `nightcrew init` writes into a folder that has none: that of this repository, reached at the terminal.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
    process::Command,
};

use anyhow::Context as _;
use schemas::ProjectId;

/// The file without which a folder has no crew.
const TEAM: &str = "team.yaml";

/// The files, with `PROJECT` and `BASE` where the folder's own belong.
const FILES: [(&str, &str); 8] = [
    (TEAM, include_str!("first_crew/team.yaml")),
    ("models.yaml", include_str!("../../../models.yaml")),
    ("agents/lead/capabilities.yaml", include_str!("../../../agents/lead/capabilities.yaml")),
    ("agents/lead/persona.md", include_str!("../../../agents/lead/persona.md")),
    ("agents/scout/capabilities.yaml", include_str!("../../../agents/scout/capabilities.yaml")),
    ("agents/scout/persona.md", include_str!("../../../agents/scout/persona.md")),
    ("agents/coder/capabilities.yaml", include_str!("../../../agents/coder/capabilities.yaml")),
    ("agents/coder/persona.md", include_str!("../../../agents/coder/persona.md")),
];

/// The branch that work starts from where git does not say.
const BASE: &str = "main";

/// The name of a project whose folder has none that would do.
const PROJECT: &str = "project";

/// Writes what of a first crew is not there, and gives the names of the files: all of them into a folder without a team,
/// else only what every team needs. What is there is left alone.
pub(crate) fn write(dir: &Path) -> anyhow::Result<Vec<&'static str>> {
    let is_new = !dir.join(TEAM).exists();
    let (project, base) = (name_of(dir), base_of(dir));
    let mut written = Vec::new();
    for (name, text) in FILES.iter().filter(|(name, _)| is_new || !name.starts_with("agents/")) {
        let path = dir.join(name);
        if path.exists() {
            continue;
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("{} can not be made", folder.display()))?;
        }
        let written_whole = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|mut file| file.write_all(fitted(text, &project, &base).as_bytes()));
        written_whole.with_context(|| format!("{} can not be written", path.display()))?;
        written.push(*name);
    }
    Ok(written)
}

/// A file as it belongs into the folder: without this repository's schemas, room and repository.
fn fitted(text: &str, project: &str, base: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with("# yaml-language-server"));
    let mut fitted: String = lines.flat_map(|line| [line, "\n"]).collect();
    for (ours, theirs) in [
        ("rooms: [crew, terminal]", "rooms: [terminal]"),
        ("repositories: [nightcrew]", "repositories: [PROJECT]"),
        ("PROJECT", project),
        ("BASE", base),
    ] {
        fitted = fitted.replace(ours, theirs);
    }
    fitted
}

/// The folder's name as that of a project.
fn name_of(dir: &Path) -> String {
    let name = dir.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = name.trim_matches('-');
    ProjectId::try_new(name).map_or_else(|_| PROJECT.to_owned(), String::from)
}

/// The branch that the folder's repository is on.
fn base_of(dir: &Path) -> String {
    let asked = Command::new("git").args(["symbolic-ref", "--quiet", "--short", "HEAD"]).current_dir(dir).output();
    let said = asked.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let branch = said.and_then(|said| String::from_utf8(said).ok()).unwrap_or_default();
    let branch = branch.trim();
    if branch.is_empty() || branch.contains(['"', '\\']) { BASE.to_owned() } else { branch.to_owned() }
}

#[cfg(test)]
mod tests {
    use kit::crew::Crew;

    use super::*;

    #[test]
    fn a_first_crew_is_in_order_and_nothing_of_it_replaces_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("My Shop.2");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("models.yaml"), "routes: {}\n").unwrap();
        let written = write(&dir).unwrap();
        assert_eq!(written.len(), FILES.len() - 1);
        assert_eq!(fs::read_to_string(dir.join("models.yaml")).unwrap(), "routes: {}\n");
        fs::remove_file(dir.join("models.yaml")).unwrap();
        fs::remove_dir_all(dir.join("agents/coder")).unwrap();
        assert_eq!(write(&dir).unwrap(), ["models.yaml"], "agents are for a new team alone");
        fs::remove_file(dir.join(TEAM)).unwrap();
        write(&dir).unwrap();

        let crew = Crew::load(&dir).unwrap_or_else(|problems| panic!("{problems:#?}"));
        assert_eq!(crew.project.as_str(), "my-shop-2");
        assert_eq!(crew.repositories["my-shop-2"].base, BASE);
        assert!(crew.channels.matrix.is_none() && crew.agents.len() == 3);
    }

    #[test]
    fn a_name_that_is_none_becomes_one() {
        assert_eq!(name_of(Path::new("/")), PROJECT);
        assert_eq!(name_of(Path::new("/home/ada/Grün")), "gr-n");
        assert_eq!(name_of(Path::new("/home/ada/shop")), "shop");
    }
}
