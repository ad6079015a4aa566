//! Unified diffs, applied by their text: a hunk belongs where its lines are, and they must be there exactly once.
//!
//! Line numbers are not read, so that a patch survives changes elsewhere in its file. Neither git nor `patch` is needed:
//! inside of a repository, `git apply` silently skips files outside of the current directory.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

/// A planted bug: its name, its effect, and the change.
#[derive(Debug)]
pub(super) struct Patch {
    pub(super) name: String,
    /// The effect, in a sentence.
    pub(super) wrong: String,
    pub(super) diff: Diff,
}

impl Patch {
    /// Reads `sim/mutants/<name>.patch`. Two comments precede the diff: the name and the effect.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut comments = text.lines().map_while(|line| line.strip_prefix("# "));
        let (Some(name), Some(wrong)) = (comments.next(), comments.next()) else {
            bail!("{} does not begin with `# name` and `# effect`", path.display());
        };
        let file = format!("{}.patch", name.replace(' ', "-"));
        ensure!(path.ends_with(&file), "{} should be called {file}, after its name", path.display());
        let diff = Diff::parse(&text).with_context(|| format!("{} is no unified diff", path.display()))?;
        Ok(Self { name: name.to_owned(), wrong: wrong.to_owned(), diff })
    }

    /// Returns all patches of a directory, by name.
    pub(super) fn all(dir: &Path) -> Result<Vec<Self>> {
        let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }
}

#[derive(Debug)]
pub(super) struct Diff {
    hunks: Vec<Hunk>,
}

#[derive(Debug)]
struct Hunk {
    file: String,
    old: Vec<String>,
    new: Vec<String>,
}

impl Diff {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut hunks: Vec<Hunk> = Vec::new();
        let mut file = None;
        // Lines of the old and of the new text that the hunk still has: only the header says where it ends.
        let mut left = (0, 0);
        for line in text.lines() {
            if left != (0, 0) {
                let hunk = hunks.last_mut().context("a hunk has a header")?;
                hunk.add(line, &mut left).with_context(|| format!("`{line}`"))?;
            } else if let Some(path) = line.strip_prefix("--- ") {
                file = Some(path.strip_prefix("a/").unwrap_or(path).to_owned());
            } else if let Some(header) = line.strip_prefix("@@ -") {
                let file = file.clone().context("a hunk has no file")?;
                left = lengths(header).with_context(|| format!("`{line}`"))?;
                hunks.push(Hunk { file, old: Vec::new(), new: Vec::new() });
            }
        }
        ensure!(left == (0, 0), "the last hunk ends too early");
        ensure!(!hunks.is_empty(), "there is no hunk");
        Ok(Self { hunks })
    }

    /// Changes the files below a directory. If a hunk does not apply, no file is written.
    pub(super) fn apply(&self, root: &Path) -> Result<()> {
        for (file, text) in self.applied(root)? {
            std::fs::write(root.join(file), text).with_context(|| format!("cannot write {file}"))?;
        }
        Ok(())
    }

    /// Returns the changed files with their new texts.
    pub(super) fn applied(&self, root: &Path) -> Result<Vec<(&str, String)>> {
        let mut changed: Vec<(&str, String)> = Vec::new();
        for hunk in &self.hunks {
            let at = match changed.iter().position(|(file, _)| *file == hunk.file) {
                Some(at) => at,
                None => {
                    let text = std::fs::read_to_string(root.join(&hunk.file));
                    changed.push((&hunk.file, text.with_context(|| format!("cannot read {}", hunk.file))?));
                    changed.len() - 1
                }
            };
            let text = hunk.apply(&changed[at].1).with_context(|| hunk.file.clone())?;
            changed[at].1 = text;
        }
        Ok(changed)
    }
}

impl Hunk {
    fn add(&mut self, line: &str, left: &mut (usize, usize)) -> Result<()> {
        // Editors remove the blank of an empty context line.
        let (sign, rest) = if line.is_empty() { (" ", "") } else { line.split_at(1) };
        if matches!(sign, " " | "-") {
            left.0 = left.0.checked_sub(1).context("more old lines than the header says")?;
            self.old.push(rest.to_owned());
        }
        if matches!(sign, " " | "+") {
            left.1 = left.1.checked_sub(1).context("more new lines than the header says")?;
            self.new.push(rest.to_owned());
        }
        ensure!(matches!(sign, " " | "-" | "+" | "\\"), "a line of a hunk begins with blank, - or +");
        Ok(())
    }

    fn apply(&self, text: &str) -> Result<String> {
        let lines: Vec<&str> = text.lines().collect();
        let mut places =
            lines.windows(self.old.len()).enumerate().filter(|(_, window)| *window == self.old.as_slice());
        let first = self.old.iter().find(|line| !line.trim().is_empty()).map_or("", |line| line.trim());
        let (at, _) =
            places.next().ok_or_else(|| anyhow!("the lines from `{first}` on are not there any more"))?;
        ensure!(places.next().is_none(), "the lines from `{first}` on are there more than once");
        let after = &lines[at + self.old.len()..];
        let new = self.new.iter().map(String::as_str);
        let mut text = String::with_capacity(text.len());
        for line in lines[..at].iter().copied().chain(new).chain(after.iter().copied()) {
            text.push_str(line);
            text.push('\n');
        }
        Ok(text)
    }
}

/// Returns the numbers of lines in `1,2 +3,4 @@`.
fn lengths(header: &str) -> Option<(usize, usize)> {
    let (old, rest) = header.split_once(" +")?;
    let (new, _) = rest.split_once(" @@")?;
    let length = |range: &str| range.split_once(',').map_or(Some(1), |(_, length)| length.parse().ok());
    Some((length(old)?, length(new)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFF: &str =
        "# a name\n# an effect\n--- a/x.rs\n+++ b/x.rs\n@@ -9,3 +9,3 @@ fn f\n one\n-two\n+2\n three\n";

    fn written(text: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("x.rs"), text).expect("a file");
        dir
    }

    #[test]
    fn a_patch_applies_wherever_its_lines_are() {
        let dir = written("zero\none\ntwo\nthree\nfour\n");
        Diff::parse(DIFF).expect("a diff").apply(dir.path()).expect("it applies");
        let text = std::fs::read_to_string(dir.path().join("x.rs")).expect("the file");
        assert_eq!(text, "zero\none\n2\nthree\nfour\n");
    }

    #[test]
    fn lines_that_are_not_there_once_are_an_error() {
        for text in ["one\n2\nthree\n", "one\ntwo\nthree\none\ntwo\nthree\n"] {
            let error = Diff::parse(DIFF).expect("a diff").applied(written(text).path()).expect_err(text);
            assert!(format!("{error:#}").contains("x.rs"), "{error:#}");
        }
    }

    #[test]
    fn a_hunk_must_be_as_long_as_its_header_says() {
        for (from, to) in
            [("-9,3", "-9,4"), ("-9,3", "-9,2"), ("+9,3", "+9,x"), (" one", "*one"), ("@@ -", "")]
        {
            let text = DIFF.replace(from, to);
            assert!(Diff::parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_patch_is_called_after_its_name() {
        let dir = tempfile::tempdir().expect("a directory");
        for (file, text, is_ok) in
            [("a-name.patch", DIFF, true), ("other.patch", DIFF, false), ("a-name.patch", &DIFF[9..], false)]
        {
            let path = dir.path().join(file);
            std::fs::write(&path, text).expect("a file");
            assert_eq!(Patch::read(&path).is_ok(), is_ok, "{file} {text}");
        }
    }

    /// A patch that does not apply any more has to be made again: apply it by hand, `git diff` is the new one.
    #[test]
    fn every_planted_bug_applies_to_this_tree() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let patches = Patch::all(&root.join("sim/mutants")).expect("patches");
        assert!(patches.len() > 50, "{}", patches.len());
        for patch in patches {
            let applied = patch.diff.applied(&root);
            assert!(applied.is_ok(), "{}: {:#}", patch.name, applied.expect_err("an error"));
        }
    }
}
