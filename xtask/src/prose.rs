//! `xtask prose`: counts words that make sentences hard to read, and fails when a crate has more of them than before.
//!
//! `words.txt` lists the words. `xtask/prose.json` holds the counts that each crate may have, in comments, in strings
//! and in Markdown; `--write` lowers them to the present counts and raises none. Text that moves to another crate takes
//! its number with it: change both lines of the file by hand.

mod added;
mod text;
mod words;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use self::added::Added;
use self::text::{Kind, Piece};
use self::words::Words;
use crate::failure::stop;
use crate::workspace;

const BASELINE: &str = "xtask/prose.json";
/// Places in one message, per crate and kind.
const MAX_SHOWN: usize = 20;

/// Counts by crate and kind; a count that is not there is 0.
type Counts = BTreeMap<String, BTreeMap<String, usize>>;

/// One place with words that count.
#[derive(Debug)]
struct Place {
    owner: String,
    kind: Kind,
    file: String,
    line: usize,
    words: Vec<String>,
}

/// Fails if a count is above its baseline.
pub(crate) fn check() -> Result<()> {
    let places = search()?;
    refuse_more(&baseline()?, &places)
}

/// `make prose`: prints the present counts, and checks them. `--write` lowers the baseline.
pub(crate) fn run(is_write: bool) -> Result<()> {
    let (baseline, places) = (baseline()?, search()?);
    let counts = count(&places);
    println!("{}", totals(&counts));
    let lowered = lowered(&baseline, &counts);
    if is_write {
        let text = serde_json::to_string_pretty(&lowered)? + "\n";
        std::fs::write(BASELINE, text).with_context(|| format!("cannot write {BASELINE}"))?;
    } else if lowered != baseline {
        eprintln!("Counts are below the baseline: `cargo xtask prose --write` lowers it.");
    }
    refuse_more(&baseline, &places)
}

fn baseline() -> Result<Counts> {
    let text = std::fs::read_to_string(BASELINE).with_context(|| format!("cannot read {BASELINE}"))?;
    serde_json::from_str(&text).with_context(|| format!("cannot parse {BASELINE}"))
}

fn refuse_more(baseline: &Counts, places: &[Place]) -> Result<()> {
    let risen = risen(baseline, &count(places));
    if risen.is_empty() { Ok(()) } else { Err(stop(1, complaint(&risen, places, &Added::since(BASELINE)))) }
}

fn search() -> Result<Vec<Place>> {
    let words = Words::new();
    let files = workspace::files()?;
    let crates = workspace::crates(&files);
    let mut found = Vec::new();
    for file in &files {
        let read: fn(&str) -> Vec<Piece> = match file.rsplit_once('.') {
            Some((_, "rs")) => text::rust,
            Some((_, "md")) => text::markdown,
            _ => continue,
        };
        let source = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
        let owner = workspace::crate_of(&crates, file);
        for Piece { kind, line, text } in read(&source) {
            let words = words.find(&text);
            if !words.is_empty() {
                found.push(Place { owner: owner.to_owned(), kind, file: file.clone(), line, words });
            }
        }
    }
    Ok(found)
}

fn count(places: &[Place]) -> Counts {
    let mut counts = Counts::new();
    for place in places {
        *counts.entry(place.owner.clone()).or_default().entry(place.kind.name().to_owned()).or_default() +=
            place.words.len();
    }
    counts
}

fn of(counts: &Counts, owner: &str, kind: Kind) -> usize {
    counts.get(owner).and_then(|kinds| kinds.get(kind.name())).copied().unwrap_or(0)
}

/// A count above its baseline.
struct Risen {
    owner: String,
    kind: Kind,
    allowed: usize,
    count: usize,
}

fn risen(baseline: &Counts, counts: &Counts) -> Vec<Risen> {
    let each = counts.keys().flat_map(|owner| Kind::ALL.map(|kind| (owner, kind)));
    let compared = each.map(|(owner, kind)| Risen {
        owner: owner.clone(),
        kind,
        allowed: of(baseline, owner, kind),
        count: of(counts, owner, kind),
    });
    compared.filter(|risen| risen.count > risen.allowed).collect()
}

/// The lower of both counts everywhere, without zeros.
fn lowered(baseline: &Counts, counts: &Counts) -> Counts {
    let mut lowered = baseline.clone();
    for (owner, kinds) in &mut lowered {
        for kind in Kind::ALL {
            if let Some(allowed) = kinds.get_mut(kind.name()) {
                *allowed = (*allowed).min(of(counts, owner, kind));
            }
        }
        kinds.retain(|_, allowed| *allowed > 0);
    }
    lowered.retain(|_, kinds| !kinds.is_empty());
    lowered
}

fn totals(counts: &Counts) -> String {
    let total = |kind: Kind| counts.keys().map(|owner| of(counts, owner, kind)).sum::<usize>();
    format!(
        "{} in comments, {} in strings, {} in Markdown",
        total(Kind::Comments),
        total(Kind::Strings),
        total(Kind::Markdown)
    )
}

/// Names the places of each count that has risen: those in lines that are new since the baseline, if there are any.
fn complaint(risen: &[Risen], places: &[Place], added: &Added) -> String {
    let mut said = String::from("more words than before that hide who does what:\n");
    for Risen { owner, kind, allowed, count } in risen {
        // Writing to a string does not fail.
        let _ = writeln!(said, "  {owner}: {count} in {}, and the baseline is {allowed}", kind.name());
        let own: Vec<&Place> =
            places.iter().filter(|place| place.owner == *owner && place.kind == *kind).collect();
        let new: Vec<&Place> =
            own.iter().copied().filter(|place| added.contains(&place.file, place.line)).collect();
        let shown = if new.is_empty() { own } else { new };
        for place in shown.iter().take(MAX_SHOWN) {
            let _ = writeln!(said, "    {}:{}: {}", place.file, place.line, place.words.join(", "));
        }
        if shown.len() > MAX_SHOWN {
            let _ = writeln!(said, "    and {} more lines", shown.len() - MAX_SHOWN);
        }
    }
    let _ = write!(
        said,
        "  Rewrite these sentences with a named subject. For text that moved from another crate, move its number in {BASELINE}."
    );
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(list: &[(&str, &str, usize)]) -> Counts {
        let mut counts = Counts::new();
        for (owner, kind, count) in list {
            counts.entry((*owner).to_owned()).or_default().insert((*kind).to_owned(), *count);
        }
        counts
    }

    #[test]
    fn only_a_higher_count_is_an_error() {
        let baseline = counts(&[("a", "comments", 2), ("b", "strings", 1)]);
        assert!(risen(&baseline, &counts(&[("a", "comments", 2)])).is_empty());
        let found =
            risen(&baseline, &counts(&[("a", "comments", 3), ("a", "strings", 1), ("c", "markdown", 1)]));
        let named: Vec<_> = found
            .iter()
            .map(|risen| (risen.owner.as_str(), risen.kind, risen.allowed, risen.count))
            .collect();
        assert_eq!(
            named,
            [("a", Kind::Comments, 2, 3), ("a", Kind::Strings, 0, 1), ("c", Kind::Markdown, 0, 1)]
        );
    }

    #[test]
    fn writing_lowers_and_never_raises() {
        let baseline = counts(&[("a", "comments", 2), ("a", "strings", 4), ("gone", "strings", 1)]);
        let present = counts(&[("a", "comments", 5), ("a", "strings", 3), ("new", "strings", 1)]);
        assert_eq!(lowered(&baseline, &present), counts(&[("a", "comments", 2), ("a", "strings", 3)]));
    }

    #[test]
    fn a_complaint_names_file_line_and_words() {
        let place = |line, word: &str| Place {
            owner: "a".to_owned(),
            kind: Kind::Comments,
            file: "a/src/lib.rs".to_owned(),
            line,
            words: vec![word.to_owned()],
        };
        let places = [place(3, "old"), place(7, "new")];
        let risen = risen(&counts(&[("a", "comments", 1)]), &count(&places));
        let all = complaint(&risen, &places, &Added::default());
        assert!(all.contains("a: 2 in comments, and the baseline is 1"), "{all}");
        assert!(all.contains("a/src/lib.rs:3: old") && all.contains("a/src/lib.rs:7: new"), "{all}");
        let diff = "+++ b/a/src/lib.rs\n@@ -6,0 +7 @@ fn f()\n+// new\n";
        let new = complaint(&risen, &places, &Added::read(diff));
        assert!(!new.contains("lib.rs:3") && new.contains("a/src/lib.rs:7: new"), "{new}");
    }
}
