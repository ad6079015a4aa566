//! What `docs/security.md` cites is there: a promise names the test that holds it, and a test that was
//! renamed or removed must not leave a promise behind.
//!
//! A citation is `path.rs::test` in a code span. The path is below `ec2-worker/`, or else below the
//! root of the repository.

use std::fs;
use std::path::{Path, PathBuf};

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

fn root() -> PathBuf {
    Path::new(CRATE).parent().expect("the crate is in the repository").to_owned()
}

/// The code spans of a text, outside of code blocks.
fn spans(text: &str) -> Vec<&str> {
    let mut spans = Vec::new();
    let mut is_block = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_block = !is_block;
        } else if !is_block {
            spans.extend(line.split('`').skip(1).step_by(2));
        }
    }
    spans
}

/// What cites a test: the file and the name.
fn citations(text: &str) -> Vec<(&str, &str)> {
    spans(text).into_iter().filter_map(|span| span.split_once(".rs::")).collect()
}

fn is_missing(root: &Path, (file, name): (&str, &str)) -> bool {
    let file = format!("{file}.rs");
    let source = [root.join("ec2-worker").join(&file), root.join(&file)];
    let source = source.iter().find_map(|path| fs::read_to_string(path).ok());
    !source.is_some_and(|source| has_test(&source, name))
}

/// Whether there is a function of this name with an attribute that makes it a test.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let function = line.strip_prefix("async ").unwrap_or(line);
        let is_named = function
            .strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with('('));
        let mut attributes = lines[..at].iter().rev().take_while(|line| line.starts_with(['#', '/']));
        is_named && attributes.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

/// The files that a text links to.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    files.filter_map(|target| target.split('#').next()).collect()
}

#[test]
fn each_promise_names_tests_that_are_there() {
    let root = root();
    let text = fs::read_to_string(root.join("docs/security.md")).expect("the document is there");
    let cited = citations(&text);
    assert!(cited.len() > 50, "only {} citations are understood", cited.len());
    let missing: Vec<_> = cited.into_iter().filter(|cited| is_missing(&root, *cited)).collect();
    assert!(missing.is_empty(), "docs/security.md cites tests that are not there: {missing:#?}");
}

#[test]
fn linked_files_exist() {
    let docs = root().join("docs");
    let text = fs::read_to_string(docs.join("security.md")).expect("the document is there");
    let linked = links(&text);
    assert!(!linked.is_empty());
    let missing: Vec<_> = linked.into_iter().filter(|file| !docs.join(file).exists()).collect();
    assert!(missing.is_empty(), "docs/security.md links to files that are not there: {missing:#?}");
}

#[test]
fn a_test_that_is_not_there_is_noticed() {
    let cited = citations(
        "`tests/it/documents.rs::a_test_that_is_not_there_is_noticed`, `x.rs::y`\n```\n`z.rs::z`\n```",
    );
    assert_eq!(cited.len(), 2);
    assert!(!is_missing(&root(), cited[0]));
    assert!(is_missing(&root(), cited[1]), "no such file");
    for name in ["a_test_that_is_not_there", "is_missing", "citations", ""] {
        assert!(is_missing(&root(), ("tests/it/documents", name)), "{name} is no test");
    }
    assert_eq!(links("[a](b.md#c) [d](https://e) [f](#g)"), ["b.md"]);
}
