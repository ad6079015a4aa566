//! `xtask cycles`: finds modules that use each other, directly or through others. Re-exports are followed to the module
//! that defines the item.
//!
//! `pub use` hides a cycle: `use crate::Worker` looks as if it asked the crate's root. Here such a path counts as a use
//! of the module in which `Worker` is defined. `xtask/cycles.json` lists the cycles that exist; the list may only
//! shrink, and `--write` shrinks it.
//!
//! The check does not see methods (`worker.stop()` names no module) or paths that a macro puts together.

mod graph;
mod names;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use self::graph::Graph;
use self::tree::Name;
use crate::failure::stop;
use crate::workspace;

const LIST: &str = "xtask/cycles.json";

/// The cycles of each crate, each as the names of its modules with spaces between them.
type Listed = BTreeMap<String, Vec<String>>;

/// A cycle and its report.
struct Found {
    modules: BTreeSet<String>,
    cuts: Vec<String>,
}

/// Fails if there is a cycle that is not in the list.
pub(crate) fn check() -> Result<()> {
    refuse_new(&listed()?, &search()?)
}

/// `make cycles`: checks, and prints the cycles of the list that still exist, with the uses to cut.
pub(crate) fn run(is_write: bool) -> Result<()> {
    let (listed, found) = (listed()?, search()?);
    refuse_new(&listed, &found)?;
    let mut said = String::new();
    for (name, cycle) in all(&found) {
        tell(&mut said, name, cycle);
    }
    println!("{said}{} cycles", all(&found).count());
    let present: Listed =
        found.iter().map(|(name, cycles)| (name.clone(), cycles.iter().map(Found::line).collect())).collect();
    if is_write {
        let text = serde_json::to_string_pretty(&present)? + "\n";
        std::fs::write(LIST, text).with_context(|| format!("cannot write {LIST}"))?;
    } else if present != listed {
        eprintln!("The list has shrunk: `cargo xtask cycles --write` writes it.");
    }
    Ok(())
}

type FoundByCrate = BTreeMap<String, Vec<Found>>;

fn listed() -> Result<Listed> {
    let text = std::fs::read_to_string(LIST).with_context(|| format!("cannot read {LIST}"))?;
    serde_json::from_str(&text).with_context(|| format!("cannot parse {LIST}"))
}

fn search() -> Result<FoundByCrate> {
    let files = workspace::files()?;
    let crates = workspace::crates(&files);
    let mut found = FoundByCrate::new();
    for root in roots(&files) {
        let graph = graph::edges(&tree::read(Path::new(root))?);
        let cycles = graph::cycles(&graph).into_iter().map(|cycle| describe(&graph, &cycle));
        found.entry(workspace::crate_of(&crates, root).to_owned()).or_default().extend(cycles);
    }
    found.retain(|_, cycles| !cycles.is_empty());
    Ok(found)
}

fn refuse_new(listed: &Listed, found: &FoundByCrate) -> Result<()> {
    let new = new(listed, found);
    if new.is_empty() {
        return Ok(());
    }
    let mut said = String::from("modules use each other in a circle:\n");
    for (name, cycle) in new {
        tell(&mut said, name, cycle);
    }
    said += "  Cut the circle: move the item that both sides need into a module of its own, or pass it in.";
    Err(stop(1, said))
}

/// The files in which crates begin.
fn roots(files: &[String]) -> impl Iterator<Item = &str> {
    let is_root = |file: &&str| {
        let in_bin = file.rsplit_once('/').is_some_and(|(dir, _)| dir.ends_with("src/bin"));
        file.ends_with("/src/lib.rs") || file.ends_with("/src/main.rs") || in_bin && file.ends_with(".rs")
    };
    files.iter().map(String::as_str).filter(is_root)
}

fn describe(graph: &Graph, cycle: &[Name]) -> Found {
    let cut = |(from, to): (Name, Name)| {
        let uses = &graph[&from][&to];
        let at = uses
            .first()
            .map(|first| format!(" ({}:{}: {})", first.file, first.line, first.path))
            .unwrap_or_default();
        format!("{} -> {}, {} uses{at}", from.join("::"), to.join("::"), uses.len())
    };
    Found {
        modules: cycle.iter().map(|name| name.join("::")).collect(),
        cuts: graph::cuts(graph, cycle).into_iter().map(cut).collect(),
    }
}

impl Found {
    fn line(&self) -> String {
        self.modules.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

fn all(found: &FoundByCrate) -> impl Iterator<Item = (&str, &Found)> {
    found.iter().flat_map(|(name, cycles)| cycles.iter().map(move |cycle| (name.as_str(), cycle)))
}

/// Returns the cycles that are not part of a listed one.
fn new<'a>(listed: &Listed, found: &'a FoundByCrate) -> Vec<(&'a str, &'a Found)> {
    let is_new = |(name, cycle): &(&str, &Found)| {
        let is_part = |line: &String| {
            let modules: BTreeSet<String> = line.split_whitespace().map(str::to_owned).collect();
            cycle.modules.is_subset(&modules)
        };
        !listed.get(*name).is_some_and(|lines| lines.iter().any(is_part))
    };
    all(found).filter(is_new).collect()
}

fn tell(said: &mut String, name: &str, cycle: &Found) {
    // Writing to a string does not fail.
    let _ = writeln!(said, "  {name}: {} modules: {}", cycle.modules.len(), cycle.line());
    for cut in &cycle.cuts {
        let _ = writeln!(said, "    cut {cut}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The cycles of a crate with these files, each as a line, and their cuts.
    fn cycles(files: &[(&str, &str)]) -> Vec<(String, Vec<String>)> {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        let graph = graph::edges(&tree::read(&dir.path().join("lib.rs")).expect("a crate"));
        let pair = |(from, to): (Name, Name)| format!("{} -> {}", from.join("::"), to.join("::"));
        let found = graph::cycles(&graph).into_iter();
        found
            .map(|cycle| {
                let cuts = graph::cuts(&graph, &cycle).into_iter().map(pair).collect();
                (describe(&graph, &cycle).line(), cuts)
            })
            .collect()
    }

    fn lines(files: &[(&str, &str)]) -> Vec<String> {
        cycles(files).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn layers_have_no_cycle() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use a::A;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "pub struct B;"),
        ];
        assert_eq!(lines(&files), [""; 0]);
    }

    #[test]
    fn re_exports_lead_to_the_defining_module() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use a::A;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "pub struct B; fn f(_: &crate::A) {}"),
        ];
        assert_eq!(lines(&files), ["a b"]);
    }

    #[test]
    fn renamed_and_nested_re_exports_are_followed() {
        let files = [
            (
                "lib.rs",
                "mod a; mod b; mod front { pub use crate::inner::*; } mod inner { pub use crate::a::A as First; }",
            ),
            ("a.rs", "use super::b::{self, B}; pub struct A(B); fn g() { b::f() }"),
            ("b.rs", "use crate::front::First; pub struct B; pub fn f(_: &First) {}"),
        ];
        assert_eq!(lines(&files), ["a b"]);
    }

    #[test]
    fn paths_inside_macros_and_expressions_count() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "pub fn f() { println!(\"{}\", crate::b::VALUE); }"),
            ("b.rs", "pub const VALUE: u8 = 1; fn g() { if true { match 1 { _ => super::c::f(), } } }"),
            ("c.rs", "pub fn f() { let _ = [crate::a::f]; }"),
        ];
        assert_eq!(lines(&files), ["a b c"]);
    }

    #[test]
    fn a_glob_counts_for_the_names_that_are_used() {
        let lib = ("lib.rs", "mod a; mod b;");
        let b = ("b.rs", "use crate::a::f; pub struct B; fn g() { f() }");
        let used = ("a.rs", "use crate::b::*; pub fn f() {} fn h(_: B) {}");
        let unused = ("a.rs", "use crate::b::*; pub fn f() {}");
        assert_eq!(lines(&[lib, used, b]), ["a b"]);
        assert_eq!(lines(&[lib, unused, b]), [""; 0]);
    }

    #[test]
    fn submodules_are_part_of_their_parent_and_not_of_others() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "mod part; pub struct A(part::P); pub use part::P;"),
            ("a/part.rs", "use super::A; pub struct P; fn f(_: A) {}"),
            ("b.rs", "mod deep; pub fn f(_: crate::a::P) {}"),
            ("b/deep.rs", "use crate::a::A;"),
        ];
        assert_eq!(lines(&files), [""; 0]);
        let mut circular = files;
        circular[2].1 = "use super::A; pub struct P; fn f(_: A) { crate::b::f(P) }";
        assert_eq!(lines(&circular), ["a::part b"]);
    }

    #[test]
    fn tests_fields_and_other_crates_do_not_count() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A(B); impl A { fn f(&self) { self.0.b.a(); } }"),
            (
                "b.rs",
                "use a as _; pub struct B { b: u8 } #[cfg(test)] mod tests { use crate::a::A; } #[cfg(test)] use crate::a::A;",
            ),
        ];
        assert_eq!(lines(&files), [""; 0]);
    }

    #[test]
    fn cuts_are_the_few_edges_that_close_the_cycle() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c; mod d;"),
            ("a.rs", "use crate::{b::B, c::C, d::D}; pub struct A;"),
            ("b.rs", "use crate::{c::C, d::D}; pub struct B;"),
            ("c.rs", "use crate::d::D; pub struct C;"),
            ("d.rs", "use crate::a::A; pub struct D; fn f() { crate::a::A; crate::a::A::g(); }"),
        ];
        assert_eq!(cycles(&files), [("a b c d".to_owned(), vec!["d -> a".to_owned()])]);
    }

    #[test]
    fn a_listed_cycle_may_shrink_and_not_grow() {
        let listed = Listed::from([("lb".to_owned(), vec!["a b c".to_owned()])]);
        let found = |modules: &[&str]| {
            let modules = modules.iter().map(|module| (*module).to_owned()).collect();
            BTreeMap::from([("lb".to_owned(), vec![Found { modules, cuts: Vec::new() }])])
        };
        assert!(new(&listed, &found(&["a", "c"])).is_empty());
        assert!(new(&listed, &found(&["a", "b", "c"])).is_empty());
        assert_eq!(new(&listed, &found(&["a", "d"])).len(), 1);
        assert_eq!(new(&Listed::new(), &found(&["a", "c"])).len(), 1);
    }
}
