//! One slip each in `models.yaml`, and exactly what is said about it.

use crate::{
    bad_crews::{Case, assert_cases},
    project::MODELS,
};

const CASES: &[Case] = &[
    (
        MODELS,
        "  strong:\n",
        "  strang:\n",
        &["agents/lead/capabilities.yaml:3:10: unknown model route \"strong\" (did you mean \"strang\"?)"],
    ),
    (
        MODELS,
        "    provider: anthropic\n",
        "    provider: antropic\n",
        &["models.yaml:4:15: \"antropic\" is not one of: anthropic, openai, rehearsal (did you mean \"anthropic\"?)"],
    ),
    (MODELS, "    key_env: BIG_KEY\n", "", &["models.yaml:3:3: one of key_env, key_file is needed"]),
    (
        MODELS,
        "    key_env: BIG_KEY\n",
        "    key_env: sk-abc-123\n",
        &[
            "models.yaml:8:14: what is written is not valid here (the name of an environment variable in capitals, not its value)",
        ],
    ),
    (
        MODELS,
        "    key_env: BIG_KEY\n",
        "    key: sk-abc-123\n",
        &[
            "models.yaml:3:3: one of key_env, key_file is needed",
            "models.yaml:8:5: unknown key \"key\" (did you mean \"key_env\" or \"key_file\"?)",
        ],
    ),
    (
        MODELS,
        "    unpriced: true\n",
        "",
        &["models.yaml:12:12: no price for \"small-1\" (add it to prices, or say unpriced: true)"],
    ),
    (
        MODELS,
        "    max_output_tokens: 8000\n",
        "    max_output_tokens: 200000\n",
        &["models.yaml:7:24: an answer of 200000 tokens leaves no input in a window of 200000"],
    ),
    (
        MODELS,
        "    provider: rehearsal\n",
        "    provider: rehearsal\n    key_env: A\n",
        &["models.yaml:24:5: the rehearsal model takes none"],
    ),
    (
        MODELS,
        "input: \"2.5\"",
        "input: 2.5",
        &["models.yaml:28:45: expected text, found the number 2.5 (put it in quotes)"],
    ),
    (
        MODELS,
        "input: \"2.5\"",
        "input: \"2.5000001\"",
        &[
            "models.yaml:28:45: \"2.5000001\" is not valid here (dollars such as \"3.75\", in quotes, with at most six decimals)",
        ],
    ),
    (MODELS, "from: 2026-03-01", "from: 2026-13-01", &["models.yaml:28:12: \"2026-13-01\" is not a valid date"]),
    (
        MODELS,
        "from: 2026-03-01",
        "from: 2026-01-01",
        &["models.yaml:29:5: \"big-1\" has two prices from 2026-01-01 (first at line 28)"],
    ),
];

#[test]
fn slips_in_the_models() {
    assert_cases(CASES);
}
