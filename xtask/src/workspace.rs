//! Paths: the files of the repository, its crates, and cargo's output.
//!
//! Make starts xtask in the root of the workspace; all paths are relative to it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::failure::output_of;

/// Returns cargo's target directory.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| "target".into(), PathBuf::from)
}

/// Returns a program that `cargo build` has built with the `dev` profile.
pub(crate) fn built(program: &str) -> PathBuf {
    target().join("debug").join(program)
}

/// Returns the files that git knows or would add, and that exist.
pub(crate) fn files() -> Result<Vec<String>> {
    let listed = output_of(Command::new("git").args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let files: BTreeSet<&str> =
        listed.split_terminator('\0').filter(|file| Path::new(file).is_file()).collect();
    Ok(files.into_iter().map(str::to_owned).collect())
}

/// Returns the directories with a `Cargo.toml`, except the root.
pub(crate) fn crates(files: &[String]) -> Vec<String> {
    files.iter().filter_map(|file| file.strip_suffix("/Cargo.toml")).map(str::to_owned).collect()
}

/// Returns the crate that a file belongs to; outside of all crates, the first part of its path.
pub(crate) fn crate_of<'a>(crates: &'a [String], file: &'a str) -> &'a str {
    let holds = |dir: &&String| file.strip_prefix(dir.as_str()).is_some_and(|rest| rest.starts_with('/'));
    let nearest = crates.iter().filter(holds).max_by_key(|dir| dir.len());
    nearest.map_or_else(|| file.split('/').next().unwrap_or(file), String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_the_nearest_crate() {
        let crates = ["lb".to_owned(), "lb/fuzz".to_owned()];
        assert_eq!(crate_of(&crates, "lb/src/lib.rs"), "lb");
        assert_eq!(crate_of(&crates, "lb/fuzz/targets/a.rs"), "lb/fuzz");
        assert_eq!(crate_of(&crates, "lbx/src/lib.rs"), "lbx");
        assert_eq!(crate_of(&crates, "docs/a.md"), "docs");
        assert_eq!(crate_of(&crates, "README.md"), "README.md");
    }
}
