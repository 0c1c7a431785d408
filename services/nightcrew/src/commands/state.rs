//! `nightcrew state`: what an agent knows after a run, kept in a file or looked at. `say --from` goes on from it.

pub(crate) mod source;

use std::{collections::BTreeMap, path::Path};

use anyhow::Context as _;
use schemas::{
    SavedState,
    cli::StateSaved,
    event::ToolOutcome,
    state::{ToolUse, Turn},
};

use super::show;
use crate::{
    cli::{StateSaveOptions, StateShowOptions},
    connected::Connected,
    output::{Output, PrintError, Tone},
    visible,
};

/// Characters of the last words that are shown; the whole of them is in the JSON.
const LAST_WORDS_CHARS: usize = 400;

/// Writes the state of a run to a file.
pub(crate) async fn save(crew: &Connected, options: &StateSaveOptions, out: &Output) -> anyhow::Result<()> {
    let state = source::of_run(crew, &options.run).await?;
    let content = source::encode(&state)?;
    let SavedState { agent, run_id, sequence, .. } = state;
    let file = options.output.clone().unwrap_or_else(|| format!("{agent}-{run_id}.state.json").into());
    write(&file, &content).with_context(|| format!("{} can not be written", file.display()))?;
    let (file, bytes) = (file.display().to_string(), content.len() as u64);
    if options.json {
        return Ok(out.json(&StateSaved { file, bytes, agent, run_id, sequence })?);
    }
    Ok(out.line(&visible::line(&format!("{file} has what {agent} knows after {}", show::run(run_id))))?)
}

/// Writes a file whole or not at all.
fn write(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut temporary, content)?;
    temporary.persist(file)?;
    Ok(())
}

/// Shows a state. No crew is needed for that of a file.
pub(crate) async fn show(
    crew: impl AsyncFnOnce() -> anyhow::Result<Connected>,
    options: &StateShowOptions,
    out: &Output,
) -> anyhow::Result<()> {
    let state = match source::of_file(&options.of)? {
        Some(state) => state,
        None => source::of_run(&crew().await?, &options.of).await?,
    };
    if options.json {
        return Ok(out.json(&state)?);
    }
    Ok(print(&state, out)?)
}

fn print(state: &SavedState, out: &Output) -> Result<(), PrintError> {
    let fact = |name: &str, value: &str| {
        out.line(&format!("{}{}", out.tone(Tone::Quiet, &format!("{name:<14}")), visible::line(value)))
    };
    fact("agent", state.agent.as_str())?;
    let how = state.outcome.map_or("not ended", |outcome| show::outcome(outcome).1);
    fact("run", &format!("{}, {how}, up to message {}", state.run_id, state.sequence))?;
    let left_out = if state.left_out == 0 { String::new() } else { format!(", {} left out", state.left_out) };
    fact("conversation", &format!("{}{left_out}", show::counted(state.turns.len() as u64, "message")))?;
    fact("tool calls", &tools(&state.tools))?;
    if let Some(work) = &state.work {
        fact("commit", &format!("{} on {} of {}", work.commit, work.branch, work.repository))?;
    }
    if let Some(last) = state.worktree.last() {
        let snapshots = show::counted(state.worktree.len() as u64, "snapshot");
        fact("worktree", &format!("{} of {}, {snapshots}", last.snapshot, last.repository))?;
    }
    for (harness, data) in &state.data {
        fact(harness, &data.to_string())?;
    }
    fact("last words", &show::excerpt(&last_words(state), LAST_WORDS_CHARS))
}

/// How often each tool was called, and how many of the calls did not do what was asked.
fn tools(uses: &[ToolUse]) -> String {
    let mut by_tool: BTreeMap<&str, u64> = BTreeMap::new();
    for used in uses {
        *by_tool.entry(&used.tool).or_default() += 1;
    }
    let each: Vec<String> = by_tool.iter().map(|(tool, times)| format!("{tool} {times}")).collect();
    let failed = uses.iter().filter(|used| used.outcome != ToolOutcome::Ok).count();
    match (each.is_empty(), failed) {
        (true, _) => "none".to_owned(),
        (false, 0) => each.join(", "),
        (false, failed) => format!("{}; {failed} not ok", each.join(", ")),
    }
}

/// What the agent said last.
fn last_words(state: &SavedState) -> String {
    let texts = state.turns.iter().rev().find_map(|turn| match turn {
        Turn::Assistant { blocks } => {
            let texts = blocks.iter().filter_map(|block| match block {
                schemas::Block::Text { text } => Some(text.as_str()),
                _ => None,
            });
            let texts = texts.collect::<Vec<_>>().join("\n\n");
            (!texts.is_empty()).then_some(texts)
        }
        Turn::User { .. } | Turn::Tools { .. } => None,
    });
    texts.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_counted_and_failures_told() {
        let used = |tool: &str, outcome| ToolUse { call_id: "c".to_owned(), tool: tool.to_owned(), outcome };
        assert_eq!(tools(&[]), "none");
        let ok = ToolOutcome::Ok;
        assert_eq!(tools(&[used("read", ok), used("edit", ok), used("read", ok)]), "edit 1, read 2");
        assert_eq!(tools(&[used("read", ok), used("shell", ToolOutcome::Uncertain)]), "read 1, shell 1; 1 not ok");
    }
}
