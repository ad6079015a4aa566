//! `crates/testing` is for tests: no program depends on it.

use anyhow::Result;

use crate::cargo::cargo;
use crate::failure::{output_of, stop};

/// Fails if a crate has `testing` as a normal dependency or a build dependency.
pub(super) fn check() -> Result<()> {
    let tree = ["tree", "--locked", "--package", "testing", "--invert", "--edges", "normal,build"];
    let tree = output_of(cargo().args(tree).args(["--prefix", "none", "--format", "{p}"]))?;
    let dependents = dependents(&tree);
    if dependents.is_empty() {
        return Ok(());
    }
    let named = dependents.join(", ");
    Err(stop(
        1,
        format!("programs depend on `testing`, which is for tests: {named}\n  Make it a dev-dependency."),
    ))
}

fn dependents(tree: &str) -> Vec<&str> {
    tree.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "testing").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_depends_on_testing_is_named() {
        let tree = "testing v0.1.0 (/a/crates/testing)\nec2-lb v0.1.0 (/a/ec2-lb)\n";
        assert_eq!(dependents(tree), ["ec2-lb"]);
        assert_eq!(dependents("testing v0.1.0 (/a/crates/testing)\n\n"), [""; 0]);
    }
}
