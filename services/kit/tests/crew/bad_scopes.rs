//! One slip each in `capabilities.yaml`, and exactly what is said about it.

use crate::{
    bad_crews::{Case, assert_cases},
    project::{CODER, LEAD},
};

const CASES: &[Case] = &[
    (
        LEAD,
        "harness: native",
        "harness: claude",
        &["agents/lead/capabilities.yaml:1:10: \"claude\" is not one of: native"],
    ),
    (
        LEAD,
        "lifecycle: resident",
        "lifecycle: residnt",
        &[
            "agents/lead/capabilities.yaml:2:12: \"residnt\" is not one of: resident, ephemeral (did you mean \"resident\"?)",
        ],
    ),
    (
        LEAD,
        "lifecycle: resident",
        "lifecycle: ephemeral",
        &[
            "agents/lead/capabilities.yaml:2:12: nothing here starts a process of its own for a run yet (write resident)",
        ],
    ),
    (LEAD, "models: [strong, local]", "models: []", &["agents/lead/capabilities.yaml:3:9: must not be empty"]),
    (
        LEAD,
        "models: [strong, local]",
        "models: strong",
        &["agents/lead/capabilities.yaml:3:9: expected a list, found \"strong\""],
    ),
    (
        LEAD,
        "models: [strong, local]",
        "models: [strong, weak]",
        &["agents/lead/capabilities.yaml:3:18: unknown model route \"weak\" (there is filed, local, play, strong)"],
    ),
    (
        LEAD,
        "tools: [read, handoff]",
        "tools: [raed, handoff]",
        &["agents/lead/capabilities.yaml:4:9: unknown tool \"raed\" (did you mean \"read\"?)"],
    ),
    (
        LEAD,
        "tools: [read, handoff]",
        "tools: [read]",
        &["agents/lead/capabilities.yaml:7:1: \"handoff_to\" needs the tool \"handoff\""],
    ),
    (
        LEAD,
        "handoff_to: [coder]\n",
        "",
        &["agents/lead/capabilities.yaml:4:15: \"handoff\" needs agents in \"handoff_to\""],
    ),
    (
        LEAD,
        "handoff_to: [coder]\n",
        "handoff_to: [coder, lead]\n",
        &["agents/lead/capabilities.yaml:7:21: an agent can not hand work to itself"],
    ),
    (
        LEAD,
        "rooms: [crew, terminal]",
        "rooms: [crew, hall]",
        &[
            "agents/lead/capabilities.yaml:5:15: unknown room \"hall\" (there is audit, crew, terminal)",
            "team.yaml:18:14: agent \"lead\" has no room \"terminal\" in its scope (add it to rooms in agents/lead/capabilities.yaml)",
        ],
    ),
    (
        LEAD,
        "    tokens: 50000",
        "    tokens: lots",
        &["agents/lead/capabilities.yaml:10:13: expected a whole number, found \"lots\""],
    ),
    (
        LEAD,
        "budgets:\n",
        "egress: [example.org]\nbudgets:\n",
        &["agents/lead/capabilities.yaml:8:1: unknown key \"egress\""],
    ),
    (
        CODER,
        "    access: read\n",
        "    access: raed\n",
        &["agents/coder/capabilities.yaml:8:13: \"raed\" is not one of: read, write (did you mean \"read\"?)"],
    ),
    (CODER, "    access: read\n", "    allow: [ls]\n", &["agents/coder/capabilities.yaml:8:5: unknown key \"allow\""]),
    (
        CODER,
        "  - name: shell\n",
        "  - name: edit\n",
        &[
            "agents/coder/capabilities.yaml:7:11: \"edit\" is there twice (first at line 6)",
            "agents/coder/capabilities.yaml:8:5: \"edit\" can not be restricted",
        ],
    ),
    (
        CODER,
        "  - read\n",
        "  - 7\n",
        &["agents/coder/capabilities.yaml:5:5: expected text or a mapping, found the number 7"],
    ),
    (
        CODER,
        "repositories: [site, docs]",
        "repositories: [site, dosc]",
        &["agents/coder/capabilities.yaml:11:22: unknown repository \"dosc\" (did you mean \"docs\"?)"],
    ),
];

#[test]
fn slips_in_a_scope() {
    assert_cases(CASES);
}
