//! Resolves a path to the module that defines its item, through re-exports.

use super::tree::{Name, Tree};

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Module(Name),
    /// An item, and the module that defines it.
    Item(Name),
}

/// Re-exports may be circular through globs; no real chain is longer.
const MAX_STEPS: usize = 24;

/// Returns what a path means inside a module, or `None` if it leads out of the crate.
pub(super) fn resolve(tree: &Tree, from: &Name, path: &[String]) -> Option<Target> {
    resolve_within(tree, from, path, MAX_STEPS)
}

fn resolve_within(tree: &Tree, from: &Name, path: &[String], steps: usize) -> Option<Target> {
    let steps = steps.checked_sub(1)?;
    let (first, rest) = path.split_first()?;
    let mut found = match first.as_str() {
        "crate" => Target::Module(Vec::new()),
        "self" => Target::Module(from.clone()),
        "super" => Target::Module(from.split_last()?.1.to_vec()),
        name => look_up(tree, from, name, steps)?,
    };
    for segment in rest {
        found = match found {
            Target::Module(module) if segment == "super" => Target::Module(module.split_last()?.1.to_vec()),
            Target::Module(module) => look_up(tree, &module, segment, steps)?,
            // A variant, an associated function.
            item @ Target::Item(_) => return Some(item),
        };
    }
    Some(found)
}

/// Finds a name in a module: its items and submodules, then its imports, then its globs.
fn look_up(tree: &Tree, module: &Name, name: &str, steps: usize) -> Option<Target> {
    let steps = steps.checked_sub(1)?;
    let found = tree.get(module)?;
    if found.items.iter().any(|item| item == name) {
        return Some(Target::Item(module.clone()));
    }
    if found.children.iter().any(|child| child == name) {
        return Some(Target::Module([&module[..], &[name.to_owned()]].concat()));
    }
    // `use tracing;` names a crate, and not itself.
    let is_itself = |path: &[String]| path.first().is_some_and(|first| first == name);
    if let Some(import) = found.imports.iter().find(|import| import.name == name) {
        return if is_itself(&import.path) {
            None
        } else {
            resolve_within(tree, module, &import.path, steps)
        };
    }
    found.globs.iter().find_map(|glob| {
        if is_itself(glob) {
            return None;
        }
        match resolve_within(tree, module, glob, steps)? {
            Target::Module(other) if other != *module => look_up(tree, &other, name, steps),
            // The variants of an enum.
            _ => None,
        }
    })
}
