//! Reads the modules of one crate: their items, their imports and the paths in their code.
//!
//! One node per file: an inline `mod` belongs to the file that holds it. Tests are left out (`#[cfg(test)]`),
//! because a test may look at everything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Attribute, Item, UseTree};

/// Names of a module from the crate's root: `["http", "chunked"]`, and none for the root itself.
pub(super) type Name = Vec<String>;

/// One module, inline or in a file of its own.
#[derive(Debug, Default)]
pub(super) struct Module {
    /// The file's module: the module itself, unless it is inline.
    pub file_module: Name,
    pub file: PathBuf,
    pub items: Vec<String>,
    pub children: Vec<String>,
    pub imports: Vec<Import>,
    pub globs: Vec<Vec<String>>,
    pub paths: Vec<Mention>,
}

/// `use path as name`.
#[derive(Clone, Debug)]
pub(super) struct Import {
    pub name: String,
    pub path: Vec<String>,
    pub line: usize,
}

/// A path in the code, `crate::table::Table::new`, or a single name.
#[derive(Clone, Debug)]
pub(super) struct Mention {
    pub path: Vec<String>,
    pub line: usize,
}

pub(super) type Tree = BTreeMap<Name, Module>;

/// Reads the crate whose root is this file.
pub(super) fn read(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    let dir = root.parent().unwrap_or(Path::new(".")).to_owned();
    read_file(&mut tree, root, &dir, Vec::new())?;
    Ok(tree)
}

/// Reads a file and its submodules, which are in `dir`.
fn read_file(tree: &mut Tree, file: &Path, dir: &Path, name: Name) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let parsed = syn::parse_file(&text).with_context(|| format!("cannot parse {}", file.display()))?;
    read_items(tree, parsed.items, &Place { file, dir, file_module: &name.clone() }, name)
}

struct Place<'a> {
    file: &'a Path,
    dir: &'a Path,
    file_module: &'a Name,
}

fn read_items(tree: &mut Tree, items: Vec<Item>, place: &Place<'_>, name: Name) -> Result<()> {
    let mut module =
        Module { file_module: place.file_module.clone(), file: place.file.to_owned(), ..Module::default() };
    for item in items {
        match item {
            Item::Mod(item) if is_test(&item.attrs) => {}
            Item::Mod(item) => {
                let child = item.ident.to_string();
                let child_name = [&name[..], std::slice::from_ref(&child)].concat();
                let child_dir = place.dir.join(&child);
                module.children.push(child);
                match item.content {
                    Some((_, items)) => {
                        read_items(tree, items, &Place { dir: &child_dir, ..*place }, child_name)?;
                    }
                    None => {
                        read_file(tree, &file_of(&item.attrs, &child_dir, place), &child_dir, child_name)?
                    }
                }
            }
            Item::Use(item) if is_test(&item.attrs) => {}
            Item::Use(item) => read_use(&mut module, &item.tree, Vec::new()),
            item => {
                if is_test(attributes(&item)) {
                    continue;
                }
                module.items.extend(defined(&item));
                mentions(item.into_token_stream(), &mut module.paths);
            }
        }
    }
    tree.insert(name, module);
    Ok(())
}

/// Returns the file of `mod child;`: `child.rs`, `child/mod.rs`, or the file in `#[path]`.
fn file_of(attributes: &[Attribute], child_dir: &Path, place: &Place<'_>) -> PathBuf {
    let named =
        attributes.iter().filter(|attribute| attribute.path().is_ident("path")).find_map(|attribute| {
            let value = &attribute.meta.require_name_value().ok()?.value;
            Some(value.to_token_stream().to_string().trim_matches('"').to_owned())
        });
    if let Some(named) = named {
        return place.file.parent().unwrap_or(place.dir).join(named);
    }
    let beside = child_dir.with_extension("rs");
    if beside.exists() { beside } else { child_dir.join("mod.rs") }
}

/// Whether the item is compiled for tests only.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = attribute.meta.to_token_stream().to_string().replace(' ', "");
        text == "test" || text.starts_with("cfg(test") || text.starts_with("cfg(all(test")
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        _ => &[],
    }
}

/// The name that an item adds to its module.
fn defined(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

fn read_use(module: &mut Module, tree: &UseTree, mut before: Vec<String>) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            read_use(module, &path.tree, before);
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                read_use(module, tree, before.clone());
            }
        }
        UseTree::Glob(_) => module.globs.push(before),
        UseTree::Name(name) => {
            let line = name.ident.span().start().line;
            // `use a::b::{self}` imports `b`.
            if name.ident != "self" {
                before.push(name.ident.to_string());
            }
            let Some(name) = before.last().cloned() else { return };
            module.imports.push(Import { name, path: before, line });
        }
        UseTree::Rename(rename) => {
            let line = rename.ident.span().start().line;
            if rename.ident != "self" {
                before.push(rename.ident.to_string());
            }
            module.imports.push(Import { name: rename.rename.to_string(), path: before, line });
        }
    }
}

/// Collects each path among these tokens, inside macros too. A name after a dot is a field or a method.
fn mentions(tokens: TokenStream, found: &mut Vec<Mention>) {
    let mut path: Vec<String> = Vec::new();
    let mut line = 0;
    let (mut colons, mut is_after_dot) = (0, false);
    for token in tokens {
        match token {
            TokenTree::Ident(name) => {
                if colons < 2 {
                    finish(&mut path, line, found);
                    line = name.span().start().line;
                }
                if !is_after_dot {
                    path.push(name.to_string());
                }
                (colons, is_after_dot) = (0, false);
            }
            TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
            TokenTree::Punct(mark) => {
                finish(&mut path, line, found);
                colons = 0;
                // `..name` is a range or an update, and `name` an expression.
                is_after_dot = mark.as_char() == '.' && !is_after_dot;
            }
            TokenTree::Group(group) => {
                finish(&mut path, line, found);
                (colons, is_after_dot) = (0, false);
                mentions(group.stream(), found);
            }
            TokenTree::Literal(_) => {
                finish(&mut path, line, found);
                (colons, is_after_dot) = (0, false);
            }
        }
    }
    finish(&mut path, line, found);
}

fn finish(path: &mut Vec<String>, line: usize, found: &mut Vec<Mention>) {
    if !path.is_empty() {
        found.push(Mention { path: std::mem::take(path), line });
    }
}
