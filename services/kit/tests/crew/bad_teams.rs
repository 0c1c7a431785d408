//! One slip each in `team.yaml`, and exactly what is said about it.

use crate::{
    bad_crews::{Case, assert_cases},
    project::TEAM,
};

const CASES: &[Case] = &[
    (
        TEAM,
        "project: demo",
        "project: My Demo",
        &[
            "team.yaml:2:10: \"My Demo\" is not valid here (a name is 1 to 63 of a-z, 0-9 and inner dashes, and begins with a letter)",
        ],
    ),
    (TEAM, "project: demo\n", "", &["team.yaml:2:1: missing key \"project\""]),
    (
        TEAM,
        "time_zone: Europe/Berlin",
        "time_zone: Europe/Berlim",
        &[
            "team.yaml:3:12: unknown time zone \"Europe/Berlim\" (a name of the IANA time zone database, such as UTC or Europe/Berlin)",
        ],
    ),
    (
        TEAM,
        "  - name: coder\n",
        "  - name: codr\n",
        &[
            "team.yaml:7:11: agent \"codr\" has no agents/codr/capabilities.yaml",
            "team.yaml:7:11: agent \"codr\" has no agents/codr/persona.md",
            "team.yaml:18:20: unknown agent \"coder\" (did you mean \"codr\"?)",
            "team.yaml:32:24: unknown agent \"coder\" (did you mean \"codr\"?)",
            "agents/lead/capabilities.yaml:7:14: unknown agent \"coder\" (did you mean \"codr\"?)",
        ],
    ),
    (
        TEAM,
        "  - name: coder\n",
        "  - name: coder\n  - name: lead\n",
        &["team.yaml:8:11: \"lead\" is there twice (first at line 5)"],
    ),
    (
        TEAM,
        "    description: answers",
        "    decription: answers",
        &["team.yaml:6:5: unknown key \"decription\" (did you mean \"description\"?)"],
    ),
    (
        TEAM,
        "source: ../site",
        "source: https://ann:hunter2@example.org/site.git",
        &["team.yaml:10:13: what is written is not valid here (a path or an address, without a password in it)"],
    ),
    (
        TEAM,
        "  docs:\n",
        "  Docs:\n",
        &[
            "agents/coder/capabilities.yaml:11:22: unknown repository \"docs\" (did you mean \"Docs\"?)",
            "team.yaml:12:3: \"Docs\" can not be a key here (a name is 1 to 63 of a-z, 0-9 and inner dashes, and begins with a letter)",
        ],
    ),
    (TEAM, "    allow: local", "    allow: everybody", &["team.yaml:17:12: \"everybody\" is not one of: local"]),
    (
        TEAM,
        "agents: [lead, coder]\n    default: lead\n  matrix",
        "agents: [lead, coder]\n  matrix",
        &["team.yaml:16:3: missing key \"default\" (the agent that a message wakes when it names none)"],
    ),
    (
        TEAM,
        "    password_file: secrets/matrix\n",
        "    password: hunter2\n",
        &[
            "team.yaml:20:3: one of password_file, password_env, token_file, token_env is needed",
            "team.yaml:23:5: unknown key \"password\" (did you mean \"password_env\" or \"password_file\"?)",
        ],
    ),
    (
        TEAM,
        "    password_file: secrets/matrix\n",
        "    password_env: hunter2\n",
        &[
            "team.yaml:23:19: what is written is not valid here (the name of an environment variable in capitals, not its value)",
        ],
    ),
    (
        TEAM,
        "    password_file: secrets/matrix\n",
        "    password_file: a\n    token_env: B\n",
        &["team.yaml:24:5: only one of password_file, password_env, token_file, token_env can be given"],
    ),
    (
        TEAM,
        "homeserver: https://matrix.example.org/",
        "homeserver: matrix.example.org",
        &[
            "team.yaml:21:17: \"matrix.example.org\" is not valid here (an http:// or https:// address without credentials or query)",
        ],
    ),
    (
        TEAM,
        "user: \"@crew:example.org\"",
        "user: crew",
        &["team.yaml:22:11: \"crew\" is not valid here (a Matrix user id such as @crew:example.org, in quotes)"],
    ),
    (
        TEAM,
        "      - \"@ann:example.org\"\n",
        "      - @ann:example.org\n",
        &["team.yaml:25:9: not valid YAML: unexpected character: `@'"],
    ),
    (
        TEAM,
        "      - \"@ann:example.org\"\n",
        "      - \"@*:friends.example.org\"\n",
        &["team.yaml:26:9: \"@*:friends.example.org\" is there twice (first at line 25)"],
    ),
    (
        TEAM,
        "audit_room: audit",
        "audit_room: adit",
        &["team.yaml:27:17: unknown room \"adit\" (did you mean \"audit\"?)"],
    ),
    (
        TEAM,
        "        alias: \"#crew:example.org\"\n",
        "        alias: #crew:example.org\n",
        &["team.yaml:30:9: expected text, found nothing"],
    ),
    (TEAM, "        alias: \"#crew:example.org\"\n", "", &["team.yaml:29:9: one of id, alias is needed"]),
    (
        TEAM,
        "        mode: all\n",
        "        mode: any\n",
        &["team.yaml:31:15: \"any\" is not one of: mention, all, listen"],
    ),
    (
        TEAM,
        "        agents: [lead, coder]\n        default: lead\n",
        "        agents: []\n",
        &["team.yaml:32:9: no agent can be woken here (name some, or use mode: listen)"],
    ),
    (
        TEAM,
        "        agents: [lead, coder]\n        default: lead\n",
        "        agents: [lead, coder]\n",
        &["team.yaml:29:9: missing key \"default\" (the agent that a message wakes when it names none)"],
    ),
    (
        TEAM,
        "        agents: [lead, coder]\n        default: lead\n",
        "        agents: [lead]\n        default: coder\n",
        &["team.yaml:33:18: the default \"coder\" is not among the agents here"],
    ),
    (
        TEAM,
        "      - name: audit\n",
        "      - name: crew\n",
        &[
            "team.yaml:27:17: unknown room \"audit\" (there is crew, terminal)",
            "team.yaml:34:15: \"crew\" is there twice (first at line 29)",
        ],
    ),
    (
        TEAM,
        "      - name: audit\n",
        "      - name: terminal\n",
        &[
            "team.yaml:27:17: unknown room \"audit\" (there is crew, terminal)",
            "team.yaml:34:15: \"terminal\" is the command line's name, not a room's",
        ],
    ),
    (
        TEAM,
        "  deadline: 90m",
        "  deadline: 90",
        &["team.yaml:42:13: expected text, found the number 90 (put it in quotes)"],
    ),
    (
        TEAM,
        "  deadline: 90m",
        "  deadline: 8d",
        &["team.yaml:42:13: 8d is longer than a run's credential lasts (at most 7d)"],
    ),
    (
        TEAM,
        "  deadline: 90m",
        "  deadline: 1h30m",
        &["team.yaml:42:13: \"1h30m\" is not valid here (a whole number and a unit: 90s, 30m, 2h or 1d)"],
    ),
    (TEAM, "  max_steps: 40", "  max_steps: 0", &["team.yaml:38:14: the number 0 is less than 1"]),
    (
        TEAM,
        "/runs/{run_id}",
        "/runs/{id}",
        &[
            "team.yaml:46:12: \"https://crew.example.org/runs/{id}\" is not valid here (an http:// or https:// address with {run_id} in its path)",
        ],
    ),
];

#[test]
fn slips_in_the_team() {
    assert_cases(CASES);
}
