//! Finds the uses between files, the cycles among them, and the uses whose removal opens each cycle.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{Target, resolve};
use super::tree::{Name, Tree};

/// One use of another module: where, and of what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Use {
    pub file: String,
    pub line: usize,
    pub path: String,
}

pub(super) type Graph = BTreeMap<Name, BTreeMap<Name, BTreeSet<Use>>>;

/// Returns the edges between the files of a crate.
///
/// A module and its submodules are one unit, told in several files: edges between a module and its own ancestors are
/// left out.
pub(super) fn edges(tree: &Tree) -> Graph {
    let mut graph = Graph::new();
    for (name, module) in tree {
        let imports = module.imports.iter().map(|import| (&import.path, import.line, true));
        let mentions = module.paths.iter().map(|mention| (&mention.path, mention.line, false));
        for (path, line, is_import) in imports.chain(mentions) {
            // An imported single name is an edge already, by its `use`; a glob's names are not.
            let is_known = !is_import && path.len() == 1 && !comes_by_glob(tree, name, &path[0]);
            if is_known {
                continue;
            }
            let Some(Target::Item(definer)) = resolve(tree, name, path) else { continue };
            let (from, to) = (&module.file_module, &tree[&definer].file_module);
            if !from.starts_with(to) && !to.starts_with(from) {
                let found = Use { file: module.file.display().to_string(), line, path: path.join("::") };
                graph.entry(from.clone()).or_default().entry(to.clone()).or_default().insert(found);
            }
        }
    }
    graph
}

fn comes_by_glob(tree: &Tree, module: &Name, name: &str) -> bool {
    let module = &tree[module];
    !module.globs.is_empty()
        && !module.items.iter().chain(&module.children).any(|item| item == name)
        && !module.imports.iter().any(|import| import.name == name)
}

/// Returns the strongly connected components of more than one module, the largest first.
pub(super) fn cycles(graph: &Graph) -> Vec<Vec<Name>> {
    let reachable: BTreeMap<&Name, BTreeSet<&Name>> =
        graph.keys().map(|name| (name, reach(graph, name))).collect();
    let mut found: Vec<Vec<Name>> = Vec::new();
    for (name, others) in &reachable {
        if found.iter().any(|cycle| cycle.contains(name)) {
            continue;
        }
        let is_mutual = |other: &&Name| reachable.get(*other).is_some_and(|back| back.contains(name));
        let cycle: Vec<Name> = others.iter().copied().filter(is_mutual).cloned().collect();
        if cycle.len() > 1 {
            found.push(cycle);
        }
    }
    found.sort_by_key(|cycle| std::cmp::Reverse(cycle.len()));
    found
}

fn reach<'a>(graph: &'a Graph, from: &'a Name) -> BTreeSet<&'a Name> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(name) = next.pop() {
        for other in graph.get(name).into_iter().flat_map(BTreeMap::keys) {
            if seen.insert(other) {
                next.push(other);
            }
        }
    }
    seen
}

/// Weight of an edge, to which its uses are added: more than any module has. Few edges are cut rather than few uses.
const EDGE: usize = 1000;

/// Returns edges of a cycle without which it is none, few and with few uses.
///
/// The modules are put in an order in which little points backwards: that is to be cut. From each of three orders,
/// single modules move to better places until none does, and the best result wins. Optimal is NP-hard, and not needed.
pub(super) fn cuts(graph: &Graph, cycle: &[Name]) -> Vec<(Name, Name)> {
    let uses = |from: &Name, to: &Name| graph.get(from).and_then(|edges| edges.get(to));
    let weight = |from: &Name, to: &Name| uses(from, to).map_or(0, |uses| EDGE + uses.len());
    let weights =
        Weights(cycle.iter().map(|from| cycle.iter().map(|to| weight(from, to)).collect()).collect());
    let given: Vec<usize> = (0..cycle.len()).collect();
    let starts = [weights.greedy_order(), given.iter().rev().copied().collect(), given];
    let best =
        starts.map(|order| weights.improved(order)).into_iter().min_by_key(|order| weights.backwards(order));
    let order = best.unwrap_or_default();
    let edges = pairs(&order).filter(|(later, early)| weights.0[*later][*early] > 0);
    edges.map(|(later, early)| (cycle[later].clone(), cycle[early].clone())).collect()
}

/// All pairs of an order, the later one first.
fn pairs(order: &[usize]) -> impl Iterator<Item = (usize, usize)> {
    order.iter().enumerate().flat_map(|(at, later)| order[..at].iter().map(move |early| (*later, *early)))
}

/// The weight of each edge, from and to the modules' numbers.
struct Weights(Vec<Vec<usize>>);

impl Weights {
    fn backwards(&self, order: &[usize]) -> usize {
        pairs(order).map(|(later, early)| self.0[later][early]).sum()
    }

    fn improved(&self, mut order: Vec<usize>) -> Vec<usize> {
        let mut best = self.backwards(&order);
        loop {
            let before = best;
            let count = order.len();
            for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
                let mut moved = order.clone();
                let module = moved.remove(from);
                moved.insert(to, module);
                let cost = self.backwards(&moved);
                if cost < best {
                    (order, best) = (moved, cost);
                }
            }
            if best == before {
                return order;
            }
        }
    }

    /// Takes the module with the most that points away from it, again and again (Eades, Lin and Smyth 1993).
    fn greedy_order(&self) -> Vec<usize> {
        let mut left: Vec<usize> = (0..self.0.len()).collect();
        let mut order = Vec::new();
        while !left.is_empty() {
            let surplus = |module: usize| {
                let out: usize = left.iter().map(|other| self.0[module][*other]).sum();
                let back: usize = left.iter().map(|other| self.0[*other][module]).sum();
                // Differences of unsigned numbers, comparable.
                (out + EDGE * EDGE).saturating_sub(back)
            };
            let at = (0..left.len()).max_by_key(|at| surplus(left[*at])).unwrap_or(0);
            order.push(left.remove(at));
        }
        order
    }
}
