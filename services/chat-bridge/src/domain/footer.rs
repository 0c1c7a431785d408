//! The line under an answer: who spoke, which run, how long, how many tokens, what it cost, where to look.

use schemas::{
    MicroUsd,
    event::{Footer, Totals},
};

/// The footer as one line of Markdown. `link` is where the run can be looked at, if anywhere.
pub fn line(footer: &Footer, link: Option<&str>) -> String {
    let run = match link {
        Some(link) => format!("[run {}]({link})", footer.run_id.short()),
        None => format!("run `{}`", footer.run_id),
    };
    let mut parts = vec![footer.agent.to_string(), run];
    parts.extend(usage(&footer.totals));
    if footer.rehearsal {
        parts.push("rehearsal: no model was asked, nothing was paid".to_owned());
    }
    format!("*{}*", parts.join(" · "))
}

/// Duration, tokens and cost for people.
pub fn usage(totals: &Totals) -> [String; 3] {
    let tokens = totals.usage.total();
    let counted = format!("{}{} token{}", at_most(totals), grouped(tokens), if tokens == 1 { "" } else { "s" });
    [duration(totals.millis), counted, cost(totals)]
}

/// What stands before figures of which some are upper estimates.
const fn at_most(totals: &Totals) -> &'static str {
    if totals.estimated_calls > 0 { "at most " } else { "" }
}

fn cost(totals: &Totals) -> String {
    match (totals.unpriced_calls, totals.model_calls) {
        (0, _) => format!("{}{}", at_most(totals), money(totals.cost)),
        (unpriced, all) if unpriced >= all => "no price known".to_owned(),
        (unpriced, _) => {
            format!("{}{} and {unpriced} calls without a price", at_most(totals), money(totals.cost))
        }
    }
}

/// Money to a hundredth of a cent, or what is left of it.
fn money(MicroUsd(micros): MicroUsd) -> String {
    match micros {
        0 => "$0".to_owned(),
        1..100 => "< $0.0001".to_owned(),
        _ => {
            let rounded = micros.saturating_add(50) / 100;
            format!("${}.{:04}", rounded / 10_000, rounded % 10_000)
        }
    }
}

fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..10 => format!("{}.{} s", seconds, millis % 1000 / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use schemas::{AgentName, Usage};

    use super::*;

    fn footer(totals: Totals) -> Footer {
        Footer {
            agent: AgentName::try_new("lead").unwrap(),
            run_id: "00000000-0000-0000-0000-0000deadbeef".parse().unwrap(),
            totals,
            rehearsal: false,
        }
    }

    #[test]
    fn everything_stands_in_one_line() {
        let usage = Usage { input_tokens: 12_000, output_tokens: 345, ..Usage::default() };
        let totals = Totals { usage, cost: MicroUsd(12_345), model_calls: 2, millis: 42_300, ..Totals::default() };
        assert_eq!(
            line(&footer(totals), Some("http://console/r")),
            "*lead · [run deadbeef](http://console/r) · 42 s · 12,345 tokens · $0.0123*"
        );
    }

    #[test]
    fn what_was_not_reported_is_said_to_be_an_upper_estimate() {
        let usage = Usage { output_tokens: 1_200, ..Usage::default() };
        let totals = Totals { usage, cost: MicroUsd(12_345), estimated_calls: 1, model_calls: 2, ..Totals::default() };
        assert!(line(&footer(totals), None).ends_with("· at most 1,200 tokens · at most $0.0123*"));
    }

    #[test]
    fn a_rehearsal_says_so_and_an_unknown_price_too() {
        let totals = Totals { unpriced_calls: 1, model_calls: 1, ..Totals::default() };
        let footer = Footer { rehearsal: true, ..footer(totals) };
        assert!(line(&footer, None).ends_with("no price known · rehearsal: no model was asked, nothing was paid*"));
    }

    #[test]
    fn durations_and_money_keep_to_what_matters() {
        assert_eq!(duration(1_250), "1.2 s");
        assert_eq!(duration(3_725_000), "1 h 2 min");
        assert_eq!(money(MicroUsd(7)), "< $0.0001");
        assert_eq!(money(MicroUsd(1_999_999)), "$2.0000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
