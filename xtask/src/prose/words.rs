//! Finds the words of `words.txt` in a text.

use std::collections::BTreeSet;

/// The single words and the pairs of `words.txt`.
pub(super) struct Words {
    singles: BTreeSet<&'static str>,
    pairs: BTreeSet<(&'static str, &'static str)>,
}

impl Words {
    pub(super) fn new() -> Self {
        let lines =
            include_str!("words.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (pairs, singles): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.contains(' '));
        Self {
            singles: singles.into_iter().collect(),
            pairs: pairs.into_iter().filter_map(|pair| pair.split_once(' ')).collect(),
        }
    }

    /// Returns each occurrence in a text, in lower case.
    pub(super) fn find(&self, text: &str) -> Vec<String> {
        let text = text.to_lowercase();
        let words = split(&text);
        let mut found = Vec::new();
        let mut at = 0;
        while let Some((begin, word)) = words.get(at) {
            let next = words.get(at + 1).filter(|(next, _)| &text[begin + word.len()..*next] == " ");
            match next {
                _ if self.singles.contains(word) => found.push((*word).to_owned()),
                Some((_, next)) if self.pairs.contains(&(*word, *next)) => {
                    found.push(format!("{word} {next}"));
                    at += 1;
                }
                _ => {}
            }
            at += 1;
        }
        found
    }
}

/// Words as `\w+` finds them, with where each begins.
fn split(text: &str) -> Vec<(usize, &str)> {
    let is_inside = |char: char| char.is_alphanumeric() || char == '_';
    let parts = text.split(|char| !is_inside(char)).filter(|word| !word.is_empty());
    // `split` returns parts of `text` itself.
    parts.map(|word| (word.as_ptr().addr() - text.as_ptr().addr(), word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_word_is_found_in_a_sentence() {
        let words = Words::new();
        let singles = words.singles.iter().map(|word| (*word).to_owned());
        let all: Vec<String> =
            singles.chain(words.pairs.iter().map(|(first, second)| format!("{first} {second}"))).collect();
        assert_eq!(all.len(), 32);
        for word in all {
            assert_eq!(words.find(&format!("Then ({word}), not x{word} or {word}_.")), [&*word]);
            assert_eq!(words.find(&word.to_uppercase()), [word]);
        }
    }

    #[test]
    fn a_pair_needs_one_space_between_its_words() {
        let words = Words::new();
        let (first, second) = words.pairs.iter().next().expect("there are pairs");
        for between in ["  ", "-", ", ", "\n"] {
            assert_eq!(words.find(&format!("{first}{between}{second}")), [""; 0], "{between:?}");
        }
    }
}
