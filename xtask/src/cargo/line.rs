//! Classifies the lines that cargo writes to standard error.

/// The lines that cargo writes, apart from the compiler's.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The progress bar: units done, of how many, and those in work.
    Units { done: usize, total: usize, active: Vec<String> },
    /// Cargo waits for something: a lock, the network.
    Status(String),
    /// A step that the progress bar shows as well.
    Silent,
    /// All else: errors, warnings.
    Text(String),
}

/// Words with which a line of cargo's own begins, right-aligned in twelve columns.
const STEPS: [&str; 22] = [
    "Adding",
    "Checking",
    "Compiling",
    "Created",
    "Dirty",
    "Documenting",
    "Downgrading",
    "Downloaded",
    "Executable",
    "Finished",
    "Fresh",
    "Generated",
    "Ignored",
    "Installed",
    "Installing",
    "Locking",
    "Replacing",
    "Replaced",
    "Running",
    "Summary",
    "Updating",
    "Upgrading",
];
const WAITS: [&str; 3] = ["Blocking", "Downloading", "Fetch"];

pub(super) fn read(raw: &str) -> Line {
    let plain = without_colour(raw);
    let trimmed = plain.trim();
    let Some((word, rest)) = trimmed.split_once(' ') else { return text(raw, trimmed) };
    // Diagnostics are not indented by cargo's columns.
    let is_aligned = plain
        .trim_end()
        .strip_prefix(&" ".repeat(12_usize.saturating_sub(word.len())))
        .is_some_and(|rest| rest.starts_with(word));
    if !is_aligned {
        return text(raw, trimmed);
    }
    match word {
        "Building" => units(rest).unwrap_or(Line::Silent),
        step if STEPS.contains(&step) => Line::Silent,
        wait if WAITS.contains(&wait) => Line::Status(trimmed.to_owned()),
        _ => text(raw, trimmed),
    }
}

fn text(raw: &str, trimmed: &str) -> Line {
    // The number of the warnings above, and the advice of `cargo install`: the tools are called by their paths.
    let is_count = trimmed.starts_with("warning: `") && trimmed.contains(" generated ");
    if is_count || trimmed.starts_with("warning: be sure to add") {
        Line::Silent
    } else {
        Line::Text(raw.trim_end().to_owned())
    }
}

/// Reads `[===>  ] 12/345: serde, syn(build.rs)`.
fn units(rest: &str) -> Option<Line> {
    let (numbers, active) =
        rest.split_once("] ")?.1.split_once(':').unwrap_or((rest.split_once("] ")?.1, ""));
    let (done, total) = numbers.trim().split_once('/')?;
    let name = |unit: &str| unit.trim().trim_end_matches("...").to_owned();
    Some(Line::Units {
        done: done.parse().ok()?,
        total: total.parse().ok()?,
        active: active.split(',').map(name).filter(|unit| !unit.is_empty()).collect(),
    })
}

/// Removes escape sequences (`ESC [ … letter`).
fn without_colour(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char == '\x1b' {
            if chars.next() == Some('[') {
                let _ = chars.by_ref().find(char::is_ascii_alphabetic);
            }
        } else {
            plain.push(char);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_bar_is_read() {
        let line =
            "    \x1b[1m\x1b[96mBuilding\x1b[0m [=>   ] 26/430: syn, serde_json(build.rs), aws-sdk-ec2   ";
        let active = ["syn", "serde_json(build.rs)", "aws-sdk-ec2"].map(str::to_owned).to_vec();
        assert_eq!(read(line), Line::Units { done: 26, total: 430, active });
        assert_eq!(
            read("    Building [=>   ] 0/1: a"),
            Line::Units { done: 0, total: 1, active: vec!["a".to_owned()] }
        );
    }

    #[test]
    fn steps_are_silent_and_waits_are_told() {
        for step in [
            "   Compiling serde v1.0.1",
            "    Finished `dev` profile",
            "  Executable unittests src/lib.rs (x)",
        ] {
            assert_eq!(read(step), Line::Silent, "{step}");
        }
        let wait = "Blocking waiting for file lock on build directory";
        assert_eq!(read(&format!("    {wait}")), Line::Status(wait.to_owned()));
    }

    #[test]
    fn diagnostics_pass_unchanged() {
        for line in [
            "\x1b[1merror[E0308]\x1b[0m: mismatched types",
            "  --> src/main.rs:1:1",
            "   |",
            "",
            "   |     Compiling",
            "error: could not compile",
        ] {
            assert_eq!(read(line), Line::Text(line.to_owned()), "{line}");
        }
    }
}
