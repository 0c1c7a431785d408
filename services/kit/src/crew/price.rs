//! What tokens cost, in integers.

use jiff::civil::Date;
use schemars::JsonSchema;
use schemas::{MicroUsd, Usage};
use serde::Deserialize;

use super::shape;

/// Tokens that a rate is for.
const TOKENS_PER_RATE: u128 = 1_000_000;

/// Decimals of a dollar in a rate: micro-dollars.
const DECIMALS: usize = 6;

/// The price of a million tokens, in micro-dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "shape::Dollars")]
pub struct Rate(pub u64);

/// Text that is not an amount of dollars with at most six decimals.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an amount of dollars")]
pub struct InvalidRate(pub String);

impl Rate {
    /// Reads dollars such as `3.75`, exactly: digits, and at most six more after a point.
    pub fn try_new(text: &str) -> Result<Self, InvalidRate> {
        let invalid = || InvalidRate(text.to_owned());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > DECIMALS {
            return Err(invalid());
        }
        format!("{whole}{fraction:0<DECIMALS$}").parse().map(Self).map_err(|_| invalid())
    }

    const fn cost(self, tokens: u64) -> u128 {
        self.0 as u128 * tokens as u128
    }
}

impl TryFrom<String> for Rate {
    type Error = InvalidRate;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::try_new(&text)
    }
}

/// What a model costs from a day on, in dollars a million tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The first day on which it holds, such as 2026-01-31.
    pub from: Date,
    /// The model, as the provider names it.
    #[schemars(length(min = 1))]
    pub model: String,
    /// Input tokens that no cache had.
    pub input: Rate,
    /// Output tokens, thinking included.
    pub output: Rate,
    /// Input tokens written to the provider's prompt cache.
    pub cache_write: Rate,
    /// Input tokens read from the provider's prompt cache.
    pub cache_read: Rate,
}

impl Price {
    /// The cost of `usage`: the exact sum, rounded up once to a whole micro-dollar, so that no call is ever shown as
    /// cheaper than it was. A sum beyond [`u64`] stays at its maximum.
    pub fn cost(&self, usage: &Usage) -> MicroUsd {
        let parts = [
            self.input.cost(usage.input_tokens),
            self.output.cost(usage.output_tokens),
            self.cache_write.cost(usage.cache_write_tokens),
            self.cache_read.cost(usage.cache_read_tokens),
        ];
        let sum = parts.into_iter().fold(0, u128::saturating_add);
        MicroUsd(u64::try_from(sum.div_ceil(TOKENS_PER_RATE)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dollars_are_read_exactly() {
        for (text, micros) in
            [("3", 3_000_000), ("0.30", 300_000), ("3.75", 3_750_000), ("0.000001", 1), ("0", 0), ("007", 7_000_000)]
        {
            assert_eq!(Rate::try_new(text), Ok(Rate(micros)), "{text}");
        }
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "0.0000001", "99999999999999999999", " 1", "१"] {
            assert_eq!(Rate::try_new(text), Err(InvalidRate(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn the_sum_is_rounded_up_once() {
        let price = price(1, 1, 1, 1);
        let one_each = Usage { input_tokens: 1, output_tokens: 1, cache_write_tokens: 1, cache_read_tokens: 1 };
        assert_eq!(price.cost(&one_each), MicroUsd(1), "four parts of a micro-dollar are one, not four");
        assert_eq!(price.cost(&Usage::default()), MicroUsd(0));
    }

    #[test]
    fn a_cost_beyond_measure_is_not_small() {
        let all = Usage { input_tokens: u64::MAX, ..Usage::default() };
        assert_eq!(price(u64::MAX, 0, 0, 0).cost(&all), MicroUsd(u64::MAX));
    }

    proptest! {
        #[test]
        fn a_cost_is_never_less_than_exact_nor_a_micro_dollar_more(
            rates in proptest::array::uniform4(0u64..1_000_000_000_000),
            tokens in proptest::array::uniform4(0u64..10_000_000),
        ) {
            let usage = Usage {
                input_tokens: tokens[0],
                output_tokens: tokens[1],
                cache_write_tokens: tokens[2],
                cache_read_tokens: tokens[3],
            };
            let exact: u128 = rates.iter().zip(tokens).map(|(rate, n)| u128::from(*rate) * u128::from(n)).sum();
            let shown = u128::from(price(rates[0], rates[1], rates[2], rates[3]).cost(&usage).0) * TOKENS_PER_RATE;
            prop_assert!(shown >= exact && shown < exact + TOKENS_PER_RATE);
        }
    }

    fn price(input: u64, output: u64, cache_write: u64, cache_read: u64) -> Price {
        Price {
            from: jiff::civil::date(2026, 1, 1),
            model: "m".to_owned(),
            input: Rate(input),
            output: Rate(output),
            cache_write: Rate(cache_write),
            cache_read: Rate(cache_read),
        }
    }
}
