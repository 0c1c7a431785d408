//! What a JSON Schema can not say about `models.yaml`.

use serde_json::Value;

use super::check::exactly_one;
use crate::yaml::{Document, Problem};

/// Everything that is wrong within `models`.
pub(super) fn problems(models: &Document) -> Vec<Problem> {
    let mut problems = duplicate_prices(models);
    for (pointer, route) in models.select("/routes/*") {
        problems.extend(key_problem(models, &pointer, route));
        problems.extend(price_problem(models, &pointer, route));
        problems.extend(window_problem(models, &pointer, route));
    }
    problems
}

/// A provider's own API needs a key; another server may need none; the rehearsal model takes none.
fn key_problem(models: &Document, pointer: &str, route: &Value) -> Option<Problem> {
    let keys = ["key_env", "key_file"];
    match route.get("provider").and_then(Value::as_str)? {
        "rehearsal" => {
            let given = ["base_url", "key_env", "key_file"].into_iter().find(|key| route.get(key).is_some())?;
            Some(models.key_problem(&format!("{pointer}/{given}"), "the rehearsal model takes none", None))
        }
        _ if route.get("base_url").is_some() && keys.iter().all(|key| route.get(key).is_none()) => None,
        _ => exactly_one(models, pointer, route, &keys),
    }
}

fn price_problem(models: &Document, pointer: &str, route: &Value) -> Option<Problem> {
    let model = route.get("model").and_then(Value::as_str)?;
    if route.get("unpriced") == Some(&Value::Bool(true)) || route.get("provider")?.as_str() == Some("rehearsal") {
        return None;
    }
    let priced = models.select("/prices/*/model").iter().any(|(_, name)| name.as_str() == Some(model));
    let hint = Some("add it to prices, or say unpriced: true".to_owned());
    (!priced).then(|| models.problem(&format!("{pointer}/model"), format!("no price for {model:?}"), hint))
}

fn window_problem(models: &Document, pointer: &str, route: &Value) -> Option<Problem> {
    let window = route.get("context_window").and_then(Value::as_u64)?;
    let output = route.get("max_output_tokens").and_then(Value::as_u64)?;
    let message = format!("an answer of {output} tokens leaves no input in a window of {window}");
    (output >= window).then(|| models.problem(&format!("{pointer}/max_output_tokens"), message, None))
}

/// Two prices of one model that begin on one day: which holds would be chance.
fn duplicate_prices(models: &Document) -> Vec<Problem> {
    let prices = models.select("/prices/*");
    let key = |price: &Value| Some((price.get("model")?.as_str()?.to_owned(), price.get("from")?.as_str()?.to_owned()));
    let mut problems = Vec::new();
    for (index, (pointer, price)) in prices.iter().enumerate() {
        let Some((model, from)) = key(price) else {
            continue;
        };
        let same =
            |(_, other): &&(String, &Value)| key(other).is_some_and(|other| other == (model.clone(), from.clone()));
        if let Some((first, _)) = prices[..index].iter().find(same) {
            let hint = Some(format!("first at line {}", models.mark(first).line));
            problems.push(models.problem(pointer, format!("{model:?} has two prices from {from}"), hint));
        }
    }
    problems
}
