//! A copy of the pure crates that may be broken: a workspace of `fleet`, `planner` and `sim` in the target directory.
//!
//! The files are read once, as they are, committed or not, and without git; later changes of the tree do not count. The copy
//! stays for the next run: cargo compiles only what differs.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::patch::Diff;
use crate::cargo::cargo;
use crate::failure::stop;
use crate::workspace::target;

/// What `sim` is built from.
const CRATES: [&str; 3] = ["crates/fleet", "crates/planner", "sim"];
const OTHERS: [&str; 3] = ["Cargo.lock", "rust-toolchain.toml", "clippy.toml"];

pub(super) struct Scratch {
    root: PathBuf,
    /// The unchanged files of the crates, by their paths below the root.
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Two runs in one copy would break each other's code.
    _lock: File,
}

impl Scratch {
    /// Copies the crates to a place of this name.
    pub(super) fn new(name: &str) -> Result<Self> {
        let dir = std::path::absolute(target().join("mutants").join(name))?;
        let root = dir.join("tree");
        std::fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let lock = File::create(dir.join("lock")).context("cannot make the lock")?;
        if lock.try_lock().is_err() {
            return Err(stop(1, format!("another run is at work in {}: wait for its end", dir.display())));
        }
        let manifest = std::fs::read_to_string("Cargo.toml").context("cannot read Cargo.toml")?;
        write_if_changed(&root.join("Cargo.toml"), narrowed(&manifest)?.as_bytes())?;
        for file in OTHERS {
            if let Ok(text) = std::fs::read(file) {
                write_if_changed(&root.join(file), &text)?;
            }
        }
        let mut files = BTreeMap::new();
        for dir in CRATES {
            read_all(Path::new(dir), &mut files)?;
        }
        let scratch = Self { root, files, _lock: lock };
        scratch.restore()?;
        Ok(scratch)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Takes all changes back. Files that are equal keep their times.
    pub(super) fn restore(&self) -> Result<()> {
        restore(&self.files, &self.root)
    }

    /// Applies a change to the unchanged copy.
    pub(super) fn break_by(&self, diff: &Diff) -> Result<()> {
        self.restore()?;
        diff.apply(&self.root)
    }

    /// Returns the unchanged files by their paths.
    pub(super) fn files(&self) -> impl Iterator<Item = (&PathBuf, &Vec<u8>)> {
        self.files.iter()
    }

    /// Builds the simulator and returns its path, or the errors of the compiler.
    pub(super) fn build_simulator(&self) -> Result<std::result::Result<PathBuf, String>> {
        let dir = self.target();
        let mut command = cargo();
        command.args(["build", "--quiet", "--profile", "sim", "--package", "sim", "--target-dir"]).arg(&dir);
        let output = command.current_dir(&self.root).output().context("cannot run cargo")?;
        if output.status.success() {
            return Ok(Ok(dir.join("sim/sim")));
        }
        Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    pub(super) fn target(&self) -> PathBuf {
        self.root.with_file_name("target")
    }

    /// Returns a call of a program in the copy, with the copy's target directory.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", self.target());
        command
    }
}

/// Returns the manifest of the workspace with these crates alone. Cargo reads dependencies on others only if they are used.
fn narrowed(manifest: &str) -> Result<String> {
    let mut text = String::new();
    let mut is_found = false;
    for line in manifest.lines() {
        match line.split_once(" = ") {
            Some(("members", _)) => {
                is_found = true;
                text.push_str(&format!("members = {CRATES:?}"));
            }
            Some(("exclude", _)) => {}
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    if !is_found {
        bail!("Cargo.toml has no line `members = …`");
    }
    Ok(text)
}

fn read_all(dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            read_all(&path, files)?;
        } else {
            let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(path, text);
        }
    }
    Ok(())
}

/// Writes what differs, and removes the files that should not be there: cargo would build a target from them.
fn restore(files: &BTreeMap<PathBuf, Vec<u8>>, root: &Path) -> Result<()> {
    for (path, text) in files {
        let path = root.join(path);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        write_if_changed(&path, text)?;
    }
    let mut present = BTreeMap::new();
    for dir in CRATES {
        read_all(&root.join(dir), &mut present)?;
    }
    for path in present.keys() {
        if path.strip_prefix(root).is_ok_and(|relative| !files.contains_key(relative)) {
            std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn write_if_changed(path: &Path, text: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_a_workspace_of_the_pure_crates() {
        let text = narrowed("[workspace]\nmembers = [\"a\", \"b\"]\nexclude = [\"c\"]\n[x]\ny = 1\n")
            .expect("a manifest");
        assert_eq!(
            text,
            "[workspace]\nmembers = [\"crates/fleet\", \"crates/planner\", \"sim\"]\n\n[x]\ny = 1\n"
        );
        assert!(narrowed("[package]\n").is_err());
        narrowed(include_str!("../../../Cargo.toml")).expect("our own manifest");
    }

    #[test]
    fn a_restored_copy_has_the_files_of_the_tree_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str| PathBuf::from(CRATES[0]).join("src").join(name);
        let files = BTreeMap::from([(file("a.rs"), b"a".to_vec()), (file("b.rs"), b"b".to_vec())]);
        for dir_of_crate in CRATES {
            std::fs::create_dir_all(dir.path().join(dir_of_crate)).expect("a directory");
        }
        restore(&files, dir.path()).expect("the first copy");
        let time =
            || dir.path().join(file("a.rs")).metadata().and_then(|data| data.modified()).expect("a time");
        let before = time();
        std::fs::write(dir.path().join(file("b.rs")), "broken").expect("a change");
        std::fs::write(dir.path().join(file("c.rs")), "new").expect("a new file");
        restore(&files, dir.path()).expect("the second copy");
        assert_eq!(std::fs::read(dir.path().join(file("b.rs"))).expect("the file"), b"b");
        assert!(!dir.path().join(file("c.rs")).exists());
        assert_eq!(time(), before, "an equal file is not written");
    }
}
