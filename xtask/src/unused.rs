//! `xtask unused`: finds dependencies that no source file names.
//!
//! cargo-shear does this as well, but its parser needs a newer compiler than the workspace's (1.98 for version 1.14.0).
//!
//! | dependency | is used if a file names it |
//! |---|---|
//! | of a program or library | in `src` |
//! | of tests | anywhere in the crate |
//! | of a build script | in `build.rs` |
//! | of the workspace | a crate depends on it |
//!
//! A name is used where it begins a path (`rand::random`), or is imported alone (`use rand;`). A module of the same name
//! hides an unused dependency. The check never reports a used one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use serde_json::Value;

use crate::cargo::cargo;
use crate::failure::{output_of, stop};
use crate::workspace;

/// Fails if a dependency is unused.
pub(crate) fn check() -> Result<()> {
    let unused = search()?;
    if unused.is_empty() {
        return Ok(());
    }
    let mut said = String::from("dependencies that no source file names:\n");
    for line in unused {
        // Writing to a string does not fail.
        let _ = writeln!(said, "  {line}");
    }
    said += "  Remove them from these manifests.";
    Err(stop(1, said))
}

fn search() -> Result<Vec<String>> {
    let metadata = output_of(cargo().args(["metadata", "--locked", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata printed no JSON")?;
    let root = Path::new(metadata["workspace_root"].as_str().context("a workspace has a root")?);
    let files = workspace::files()?;
    let crates = workspace::crates(&files);
    let mut unused = Vec::new();
    let mut all = BTreeSet::new();
    for package in list(&metadata["packages"]) {
        let manifest = Path::new(package["manifest_path"].as_str().context("a package has a manifest")?);
        let manifest =
            manifest.strip_prefix(root).context("a package lies in the workspace")?.to_string_lossy();
        let dir = manifest.trim_end_matches("/Cargo.toml");
        let mut names = Names::default();
        for file in files.iter().filter(|file| file.ends_with(".rs")) {
            if workspace::crate_of(&crates, file) == dir {
                let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
                names.add(&file[dir.len() + 1..], &text).with_context(|| format!("cannot parse {file}"))?;
            }
        }
        let dependencies = list(&package["dependencies"]);
        all.extend(dependencies.iter().filter_map(|one| one["name"].as_str()));
        let missing = dependencies.iter().filter_map(|one| names.unused(one));
        unused.extend(missing.map(|name| format!("{manifest}: {name}")));
    }
    let manifest = std::fs::read_to_string("Cargo.toml").context("cannot read Cargo.toml")?;
    let of_workspace = of_workspace(&manifest).filter(|name| !all.contains(name));
    unused.extend(of_workspace.map(|name| format!("Cargo.toml: {name}")));
    Ok(unused)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Returns the names in the root's `[workspace.dependencies]`.
fn of_workspace(manifest: &str) -> impl Iterator<Item = &str> {
    manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once(" =")?.0))
}

/// The crates that the source files of one package may name.
#[derive(Default)]
struct Names {
    in_src: BTreeSet<String>,
    in_build_script: BTreeSet<String>,
    anywhere: BTreeSet<String>,
}

impl Names {
    /// Adds the names of a file; its path begins in the package's directory.
    fn add(&mut self, path: &str, text: &str) -> Result<()> {
        let tokens: TokenStream = text.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut names = BTreeSet::new();
        collect(tokens, &mut names);
        if path.starts_with("src/") {
            self.in_src.extend(names.iter().cloned());
        } else if path == "build.rs" {
            self.in_build_script.extend(names.iter().cloned());
        }
        self.anywhere.extend(names);
        Ok(())
    }

    /// Returns the name of a dependency, as `cargo metadata` describes it, if no file names it.
    fn unused<'a>(&self, dependency: &'a Value) -> Option<&'a str> {
        let name = dependency["rename"].as_str().or(dependency["name"].as_str())?;
        let names = match dependency["kind"].as_str() {
            Some("dev") => &self.anywhere,
            Some("build") => &self.in_build_script,
            _ => &self.in_src,
        };
        (!names.contains(&name.replace('-', "_"))).then_some(name)
    }
}

/// Collects the identifiers that begin a path or are imported alone.
fn collect(tokens: TokenStream, names: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is_path = |at: usize| is_punct(tokens.get(at)) && is_punct(tokens.get(at + 1));
    for (at, token) in tokens.iter().enumerate() {
        // `tokio::time` does not name the crate `time`, and `std::{time::Duration}` does not either.
        let is_continued = at >= 3 && is_path(at - 2) && is_in_path(&tokens[at - 3]);
        match token {
            TokenTree::Group(group) if !(is_continued && group.delimiter() == Delimiter::Brace) => {
                collect(group.stream(), names);
            }
            TokenTree::Ident(name) if !is_continued && name != "use" => {
                let is_alone = at >= 1
                    && is_ident(&tokens[at - 1], &["use", "crate"])
                    && tokens.get(at + 1).is_none_or(|next| {
                        matches!(next, TokenTree::Punct(end) if end.as_char() == ';')
                            || is_ident(next, &["as"])
                    });
                if is_path(at + 1) || is_alone {
                    names.insert(name.to_string());
                }
            }
            _ => {}
        }
    }
}

fn is_punct(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Punct(colon)) if colon.as_char() == ':')
}

fn is_ident(token: &TokenTree, words: &[&str]) -> bool {
    matches!(token, TokenTree::Ident(name) if words.iter().any(|word| name == word))
}

/// Returns whether `::` after this token continues a path. `use ::rand` begins one.
fn is_in_path(token: &TokenTree) -> bool {
    match token {
        TokenTree::Ident(name) => name != "use",
        // `<T as Trait>::item`.
        TokenTree::Punct(close) => close.as_char() == '>',
        TokenTree::Group(_) | TokenTree::Literal(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(text: &str) -> Vec<String> {
        let mut names = BTreeSet::new();
        collect(text.parse().expect("tokens"), &mut names);
        names.into_iter().collect()
    }

    #[test]
    fn a_path_names_its_first_segment_only() {
        for (text, names) in [
            ("use rand::random;", &["rand"][..]),
            ("use ::rand::random;", &["rand"]),
            ("use tokio::time::sleep; fn f() { std::net::x(); }", &["std", "tokio"]),
            ("use std::{time::Duration, net};", &["std"]),
            ("use {rand::random, std::net};", &["rand", "std"]),
            ("use rand as other; extern crate time; use hmac;", &["hmac", "rand", "time"]),
            ("#[derive(thiserror::Error)] struct A(#[x(serde::y)] u8);", &["serde", "thiserror"]),
            ("m! { anyhow::bail!(1) }", &["anyhow"]),
            ("let rand = time; // rand::random\n let a: u8 = \"rand::x\";", &[]),
            ("let a = Vec::<u8>::new(); let b = <A as time::B>::c();", &["Vec", "time"]),
        ] {
            assert_eq!(names_in(text), names, "{text}");
        }
    }

    #[test]
    fn the_kind_of_a_dependency_says_where_it_must_be_named() {
        let mut names = Names::default();
        names.add("src/lib.rs", "use a_b::c;").expect("tokens");
        names.add("tests/it.rs", "use d::e;").expect("tokens");
        names.add("build.rs", "use f::g;").expect("tokens");
        let unused = |name: &str, kind: Value| {
            names.unused(&serde_json::json!({"name": name, "kind": kind})).map(str::to_owned)
        };
        for (name, kind) in
            [("a-b", Value::Null), ("a-b", "dev".into()), ("d", "dev".into()), ("f", "build".into())]
        {
            assert_eq!(unused(name, kind), None, "{name}");
        }
        for (name, kind) in
            [("d", Value::Null), ("f", Value::Null), ("x", "dev".into()), ("d", "build".into())]
        {
            assert_eq!(unused(name, kind).as_deref(), Some(name));
        }
        let renamed = serde_json::json!({"name": "x", "rename": "a-b", "kind": null});
        assert_eq!(names.unused(&renamed), None);
    }

    #[test]
    fn the_workspaces_own_list_is_read_from_the_manifest() {
        let manifest = "[workspace]\nmembers = []\n[workspace.dependencies]\na = \"1\"\n# b = \"1\"\nc-d = { path = \"x\" }\n[profile.dev]\ndebug = 0\n";
        assert_eq!(of_workspace(manifest).collect::<Vec<_>>(), ["a", "c-d"]);
    }
}
