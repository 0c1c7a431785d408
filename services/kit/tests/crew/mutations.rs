//! Any slip in a good file is either harmless or told with its line; nothing panics.

use kit::yaml::{Problem, Schema, check};
use proptest::prelude::*;
use serde_json::json;

use crate::project::{CODER, LEAD, MODELS, Project, TEAM};

const FILES: [&str; 4] = [TEAM, MODELS, LEAD, CODER];

/// Each problem names a line of its file.
fn well_placed(project: &Project, problems: &[Problem]) -> bool {
    !problems.is_empty()
        && problems.iter().all(|problem| {
            let lines = project.text(&problem.file).lines().count().max(1);
            (1..=lines).contains(&problem.line) && problem.column >= 1 && !problem.message.is_empty()
        })
}

fn survives(project: &Project) -> bool {
    project.load().map_or_else(|problems| well_placed(project, &problems), |_| true)
}

fn lines_of(file: &str) -> Vec<String> {
    Project::good().text(file).lines().map(str::to_owned).collect()
}

#[test]
fn a_line_lost_or_doubled_or_moved() {
    for file in FILES {
        let lines = lines_of(file);
        for at in 0..lines.len() {
            let mut lost = lines.clone();
            lost.remove(at);
            let mut doubled = lines.clone();
            doubled.insert(at, lines[at].clone());
            let mut deeper = lines.clone();
            deeper[at] = format!("  {}", lines[at]);
            let mut cut = lines.clone();
            cut.truncate(at);
            for mutant in [lost, doubled, deeper, cut] {
                let project = Project::good().with(file, &mutant.join("\n"));
                assert!(survives(&project), "{file} line {}: {:#?}", at + 1, project.load());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn several_slips(
        file in 0..FILES.len(),
        slips in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8, any::<prop::sample::Index>()), 1..6),
    ) {
        let mut lines = lines_of(FILES[file]);
        for (at, kind, other) in slips {
            let (at, other) = (at.index(lines.len()), other.index(lines.len()));
            match kind {
                0 if lines.len() > 1 => drop(lines.remove(at)),
                1 => lines.insert(other, lines[at].clone()),
                2 => lines.swap(at, other),
                _ => {
                    let cut = lines[at].chars().count() / 2;
                    lines[at] = lines[at].chars().take(cut).collect();
                }
            }
        }
        let project = Project::good().with(FILES[file], &lines.join("\n"));
        prop_assert!(survives(&project), "{:#?}", project.load());
    }

    #[test]
    fn any_text(text in "[a-c:{}\\[\\],&*!|>'\"%@`#?~<\\- \t\n\r\u{e9}0-9.]{0,80}") {
        let checked = check("any.yaml", &text, &Schema::new(json!({})));
        prop_assert!(checked.document.is_some() || !checked.problems.is_empty());
        let lines = text.replace("\r\n", "\n").replace('\r', "\n").lines().count().max(1);
        for problem in checked.problems {
            prop_assert!((1..=lines).contains(&problem.line), "{problem:?} of {lines}");
        }
    }
}
