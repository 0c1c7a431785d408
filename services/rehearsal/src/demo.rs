//! What the demo plays: the scenario of lead, scout and coder, and the repository that they mend.
//!
//! Both are here because the scenario's edit has to fit the repository's text to the letter.

/// The scenario file.
pub const SCENARIO: &str = include_str!("../scenarios/demo.yaml");

/// The files of `demo-repo` with their paths. One test fails; coder mends `pricing.py`.
pub const REPOSITORY: [(&str, &str); 4] = [
    ("README.md", include_str!("../scenarios/demo-repo/README.md")),
    ("pricing.py", include_str!("../scenarios/demo-repo/pricing.py")),
    ("test_pricing.py", include_str!("../scenarios/demo-repo/test_pricing.py")),
    (".gitignore", include_str!("../scenarios/demo-repo/gitignore")),
];

/// The subject of the repository's first commit: coder knows by it that a log was read to its end.
pub const FIRST_COMMIT: &str = "Add the prices of an order";
