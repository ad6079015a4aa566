//! The results of one part of the benchmark, and their format.

use crate::table::{Figure, line, print};

pub struct Findings {
    pub title: &'static str,
    /// How it was measured, where a reader would guess wrong.
    pub notes: Vec<String>,
    /// The first row is the head.
    pub rows: Vec<Vec<String>>,
    pub figures: Vec<Figure>,
}

impl Findings {
    pub fn new<const COLUMNS: usize>(title: &'static str, heads: [&str; COLUMNS]) -> Self {
        let heads = heads.map(str::to_owned).to_vec();
        Self { title, notes: Vec::new(), rows: vec![heads], figures: Vec::new() }
    }

    pub fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells.into());
    }

    pub fn goal(&mut self, text: String, is_met: bool) {
        self.figures.push(Figure { text, is_met });
    }

    pub fn show(&self) {
        line("");
        line(self.title);
        print(&self.rows);
        self.notes.iter().for_each(|note| line(&format!("  {note}")));
        for Figure { text, is_met } in &self.figures {
            line(&format!("{} {text}", if *is_met { "met:   " } else { "MISSED:" }));
        }
    }

    pub fn are_met(&self) -> bool {
        self.figures.iter().all(|figure| figure.is_met)
    }
}
