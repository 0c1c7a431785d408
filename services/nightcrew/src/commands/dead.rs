//! `nightcrew dead`: messages that could not be handled, parked until a person replays or drops them.

use data_encoding::BASE64;
use kit::{
    class::chain,
    dead::{self, DeadError, Parked, Replayed},
};
use schemas::{
    cli::{DeadList, DeadOutcome, DeadResult, DeadResults, ParkedLetter},
    dead::DeadLetter,
};

use super::show;
use crate::{
    cli::{DeadListOptions, DeadShowOptions, DeadSomeOptions},
    connected::Connected,
    output::{Output, Tone},
    visible,
};

/// Messages that `--all` takes at once.
const PAGE: usize = 200;

/// Characters of a reason in the list.
const REASON_CHARS: usize = 80;

/// Lists parked messages.
pub(crate) async fn list(crew: &Connected, options: &DeadListOptions, out: &Output) -> anyhow::Result<()> {
    let limit = usize::try_from(options.limit)?;
    let mut parked = dead::list(&crew.bus, options.from, limit + 1).await?;
    let more = parked.len() > limit;
    parked.truncate(limit);
    if options.json {
        return Ok(out.json(&DeadList { parked: parked.into_iter().map(letter).collect(), more })?);
    }
    if parked.is_empty() {
        return Ok(out.line("nothing is parked")?);
    }
    let zone = &crew.project.crew.time_zone;
    let row = |parked: &Parked| {
        vec![
            (Tone::Strong, parked.sequence.to_string()),
            (Tone::Quiet, show::moment(parked.time, zone)),
            (Tone::Plain, parked.letter.service.clone()),
            (Tone::Plain, parked.letter.subject.clone()),
            (Tone::Warning, parked.letter.code.clone()),
            (Tone::Plain, show::excerpt(&parked.letter.reason, REASON_CHARS)),
        ]
    };
    out.table(&["NUMBER", "PARKED", "SERVICE", "SUBJECT", "CODE", "REASON"], parked.iter().map(row).collect())?;
    if more {
        out.line(&out.tone(Tone::Quiet, "there are more: --limit, --from"))?;
    }
    Ok(())
}

/// Shows a parked message, whole.
pub(crate) async fn show(crew: &Connected, options: &DeadShowOptions, out: &Output) -> anyhow::Result<()> {
    let parked = dead::show(&crew.bus, options.number).await?;
    if options.json {
        return Ok(out.json(&letter(parked))?);
    }
    let DeadLetter { service, consumer, code, reason, subject, stream, sequence, headers, body, body_bytes } =
        &parked.letter;
    let fact = |name: &str, value: &str| {
        out.line(&format!("{}{}", out.tone(Tone::Quiet, &format!("{name:<10}")), visible::line(value)))
    };
    fact("number", &parked.sequence.to_string())?;
    fact("parked", &show::moment(parked.time, &crew.project.crew.time_zone))?;
    let by = consumer.as_ref().map_or_else(|| service.clone(), |consumer| format!("{service}, consumer {consumer}"));
    fact("by", &by)?;
    fact("reason", &format!("{reason} ({code})"))?;
    fact("subject", subject)?;
    match (stream, sequence) {
        (Some(stream), Some(sequence)) => fact("stored", &format!("{stream}, sequence {sequence}"))?,
        _ => fact("stored", "never published")?,
    }
    for (name, values) in headers {
        fact("header", &format!("{name}: {}", values.join(", ")))?;
    }
    let body = BASE64.decode(body.as_bytes()).unwrap_or_default();
    let cut = if (body.len() as u64) < *body_bytes { ", cut" } else { "" };
    fact("body", &format!("{}{cut}", show::counted(*body_bytes, "byte")))?;
    Ok(out.line(&visible::text(&readable(&body)))?)
}

/// A body as a person reads it: JSON indented, everything else as it is.
fn readable(body: &[u8]) -> String {
    let json = serde_json::from_slice::<serde_json::Value>(body).ok();
    let pretty = json.and_then(|json| serde_json::to_string_pretty(&json).ok());
    pretty.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
}

/// Has messages handled once more.
pub(crate) async fn replay(crew: &Connected, options: &DeadSomeOptions, out: &Output) -> anyhow::Result<()> {
    let handle = async |number| match dead::replay(&crew.bus, number).await {
        Ok(Replayed::Handled) => Ok(DeadOutcome::Handled),
        Ok(Replayed::Published(_)) => Ok(DeadOutcome::Published),
        Ok(Replayed::AlreadyThere) => Ok(DeadOutcome::AlreadyThere),
        Err(error) => Err(error),
    };
    each(crew, options, out, handle).await
}

/// Forgets messages.
pub(crate) async fn drop(crew: &Connected, options: &DeadSomeOptions, out: &Output) -> anyhow::Result<()> {
    let handle = async |number| dead::drop(&crew.bus, number).await.map(|()| DeadOutcome::Dropped);
    each(crew, options, out, handle).await
}

/// Does something with each message, in order; one that fails does not keep the others.
async fn each(
    crew: &Connected,
    options: &DeadSomeOptions,
    out: &Output,
    handle: impl AsyncFn(u64) -> Result<DeadOutcome, DeadError>,
) -> anyhow::Result<()> {
    let mut results = Vec::new();
    for number in numbers(crew, options).await? {
        let (result, reason) = match handle(number).await {
            Ok(outcome) => (outcome, None),
            Err(error) => (DeadOutcome::StillParked, Some(chain(&error))),
        };
        if !options.json {
            line(number, result, reason.as_deref(), out)?;
        }
        results.push(DeadResult { number, result, reason });
    }
    let failed = results.iter().filter(|result| result.result == DeadOutcome::StillParked).count() as u64;
    if options.json {
        out.json(&DeadResults { results })?;
    } else if results.is_empty() {
        out.line("nothing is parked")?;
    }
    if failed > 0 {
        anyhow::bail!("{} could not be dealt with", show::counted(failed, "message"));
    }
    Ok(())
}

/// All are listed before the first is dealt with: what is parked meanwhile, by these very replays perhaps, is left alone.
async fn numbers(crew: &Connected, options: &DeadSomeOptions) -> anyhow::Result<Vec<u64>> {
    if !options.all {
        return Ok(options.numbers.clone());
    }
    let mut numbers = Vec::new();
    loop {
        let from = numbers.last().map_or(1, |last| last + 1);
        let page = dead::list(&crew.bus, from, PAGE).await?;
        let len = page.len();
        numbers.extend(page.into_iter().map(|parked| parked.sequence));
        if len < PAGE {
            return Ok(numbers);
        }
    }
}

fn line(number: u64, result: DeadOutcome, reason: Option<&str>, out: &Output) -> anyhow::Result<()> {
    let (tone, word) = match result {
        DeadOutcome::Handled => (Tone::Good, "handled"),
        DeadOutcome::Published => (Tone::Good, "published again"),
        DeadOutcome::AlreadyThere => (Tone::Good, "what it starts is there already"),
        DeadOutcome::Dropped => (Tone::Good, "dropped"),
        DeadOutcome::StillParked => (Tone::Bad, "still parked"),
    };
    let reason = reason.map(|reason| format!(": {}", visible::line(reason))).unwrap_or_default();
    Ok(out.line(&format!("{number}  {}{reason}", out.tone(tone, word)))?)
}

fn letter(parked: Parked) -> ParkedLetter {
    ParkedLetter { number: parked.sequence, parked_at: parked.time, letter: parked.letter }
}
