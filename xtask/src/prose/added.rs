//! Lines that were added since the last commit of the baseline, from `git diff`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::Command;

/// Line numbers by file. Empty if git does not know.
#[derive(Debug, Default)]
pub(super) struct Added(BTreeMap<String, Vec<Range<usize>>>);

impl Added {
    /// Asks git which lines are new since the last commit that changed this file.
    pub(super) fn since(file: &str) -> Self {
        let git = |arguments: &[&str]| {
            let output = Command::new("git").args(arguments).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let commit = git(&["log", "-1", "--format=%H", "--", file]).unwrap_or_default();
        let diff = git(&[
            "diff",
            "--unified=0",
            "--no-color",
            "--no-ext-diff",
            "--src-prefix=a/",
            "--dst-prefix=b/",
            commit.trim(),
        ]);
        diff.filter(|_| !commit.is_empty()).map(|diff| Self::read(&diff)).unwrap_or_default()
    }

    /// Reads a diff without context lines.
    pub(super) fn read(diff: &str) -> Self {
        let mut added: BTreeMap<String, Vec<Range<usize>>> = BTreeMap::new();
        let mut file = String::new();
        for line in diff.lines() {
            if let Some(name) = line.strip_prefix("+++ b/") {
                name.clone_into(&mut file);
            } else if let Some(lines) = line.strip_prefix("@@ ").and_then(hunk) {
                added.entry(file.clone()).or_default().push(lines);
            }
        }
        Self(added)
    }

    pub(super) fn contains(&self, file: &str, line: usize) -> bool {
        self.0.get(file).is_some_and(|hunks| hunks.iter().any(|hunk| hunk.contains(&line)))
    }
}

/// The new lines of `-6,0 +7,2 @@ …`.
fn hunk(header: &str) -> Option<Range<usize>> {
    let new = header.split_whitespace().nth(1)?.strip_prefix('+')?;
    let (begin, count) = new.split_once(',').unwrap_or((new, "1"));
    let (begin, count): (usize, usize) = (begin.parse().ok()?, count.parse().ok()?);
    Some(begin..begin + count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_lines_are_those_of_the_diff() {
        let added = Added::read(
            "+++ b/x.rs\n@@ -1 +1,2 @@\n+a\n+b\n@@ -9,0 +11 @@ fn\n+c\n+++ b/y.rs\n@@ -3,2 +3,0 @@\n-d\n",
        );
        for (file, line, is_new) in
            [("x.rs", 1, true), ("x.rs", 2, true), ("x.rs", 3, false), ("x.rs", 11, true), ("y.rs", 3, false)]
        {
            assert_eq!(added.contains(file, line), is_new, "{file}:{line}");
        }
    }
}
