//! `make release-artifacts`: the programs for AWS.
//!
//! Release builds against the glibc of Amazon Linux 2023, linked by zig, which comes with cargo-lambda. The deployment
//! checks processor and glibc once more, with or without objdump.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cargo::watch;
use crate::failure::{PREREQUISITE, output_of, stop};
use crate::settings::Settings;
use crate::setup;
use crate::setup::find;
use crate::workspace::target;

const GLIBC: (u32, u32) = (2, 34);
const PROGRAMS: [&str; 3] = ["ec2-lb", "ec2-worker", "reconciler"];

pub(super) fn dir() -> PathBuf {
    target().join("release-artifacts")
}

pub(super) fn build(settings: &Settings) -> Result<()> {
    setup::install(settings, setup::LOCAL)?;
    let triple = triple(settings.get("ARCH"));
    let library = output_of(Command::new("rustc").args(["--print", "target-libdir", "--target", &triple]))?;
    if !Path::new(library.trim_end()).is_dir() {
        let own = arch_of_make(std::env::consts::ARCH);
        return Err(stop(
            PREREQUISITE,
            format!(
                "this Rust cannot build for {triple}: its standard library is not installed.\n  Run `rustup target add {triple}` and try again, or build for this machine's processor: ARCH={own}."
            ),
        ));
    }
    compile(settings, &triple)?;
    fs::create_dir_all(dir()).with_context(|| format!("cannot make {}", dir().display()))?;
    PROGRAMS.iter().try_for_each(|program| take(program, &triple))
}

fn compile(settings: &Settings, triple: &str) -> Result<()> {
    let bin = std::path::absolute(settings.venv().join("bin")).context("VENV is no path")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([bin.clone()].into_iter().chain(std::env::split_paths(&path)))
        .context("VENV has a colon")?;
    let mut command = Command::new(bin.join("cargo-lambda"));
    command.env("PATH", path).args(["lambda", "build", "--release", "--locked", "--target"]);
    command.arg(format!("{triple}.{}.{}", GLIBC.0, GLIBC.1));
    command.args(PROGRAMS.iter().flat_map(|program| ["--package", program]));
    watch(&command, 4)
}

/// Copies a program to the artifacts if it has changed, and prints its size and glibc.
fn take(program: &str, triple: &str) -> Result<()> {
    let built = target().join("lambda").join(program).join("bootstrap");
    let newest = newest_glibc(&built)?;
    if let Some((major, minor)) = newest.filter(|newest| *newest > GLIBC) {
        let message = format!(
            "{} needs GLIBC_{major}.{minor}, and Amazon Linux 2023 has GLIBC_{}.{}.\n  Something was linked past zig: look for RUSTFLAGS and for a linker in .cargo/config.toml.",
            built.display(),
            GLIBC.0,
            GLIBC.1
        );
        return Err(stop(1, message));
    }
    let content = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let to = dir().join(program);
    if fs::read(&to).ok().as_ref() != Some(&content) {
        fs::copy(&built, &to).with_context(|| format!("cannot write {}", to.display()))?;
    }
    let needs = newest.map_or_else(
        || "what objdump would tell".to_owned(),
        |(major, minor)| format!("GLIBC_{major}.{minor}"),
    );
    eprintln!("{}: {} bytes, {triple}, needs {needs}", to.display(), content.len());
    Ok(())
}

/// Returns the newest version of glibc that a program asks for, if objdump is there to tell.
fn newest_glibc(program: &Path) -> Result<Option<(u32, u32)>> {
    if find("objdump").is_none() {
        return Ok(None);
    }
    let mut text = String::new();
    for option in ["-T", "-p"] {
        // A program without dynamic symbols is an error to objdump.
        let output = Command::new("objdump")
            .env("LC_ALL", "C")
            .arg(option)
            .arg(program)
            .output()
            .context("cannot run objdump")?;
        text += &String::from_utf8_lossy(&output.stdout);
    }
    Ok(glibc_versions(&text).last().copied())
}

fn glibc_versions(text: &str) -> BTreeSet<(u32, u32)> {
    let version = |part: &str| {
        let version: String = part.chars().take_while(|char| char.is_ascii_digit() || *char == '.').collect();
        let (major, minor) = version.split_once('.')?;
        Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
    };
    text.split("GLIBC_").skip(1).filter_map(version).collect()
}

fn triple(arch: Option<&str>) -> String {
    let arch = arch.map_or(std::env::consts::ARCH, |arch| if arch == "arm64" { "aarch64" } else { "x86_64" });
    format!("{arch}-unknown-linux-gnu")
}

fn arch_of_make(arch: &str) -> &str {
    if arch == "aarch64" { "arm64" } else { arch }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_is_the_highest_number() {
        let text = "0 DF *UND* (GLIBC_2.2.5) memcpy\n (GLIBC_2.34) x GLIBC_PRIVATE\n (GLIBC_2.9)";
        assert_eq!(glibc_versions(text).last(), Some(&(2, 34)));
        assert_eq!(glibc_versions("none").last(), None);
    }

    #[test]
    fn arch_selects_the_target() {
        assert_eq!(triple(Some("arm64")), "aarch64-unknown-linux-gnu");
        assert_eq!(triple(Some("x86_64")), "x86_64-unknown-linux-gnu");
    }
}
