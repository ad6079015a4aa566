//! Checks whether a program will start on an instance: it must be for that processor, and need no newer
//! glibc.
//!
//! Without this check, a wrong program is noticed only when instances do not boot. It reads the file itself:
//! the section `.gnu.version_r` names the versions that its dynamic linker needs.

use object::elf::{EM_AARCH64, EM_X86_64, FileHeader64, Machine};
use object::read::elf::FileHeader as _;
use object::{Endianness, SectionIndex};

use crate::cli::Arch;

/// Amazon Linux 2023 keeps glibc 2.34 to its end. Lambda's `provided.al2023` is built from it.
pub const NEWEST_GLIBC: Glibc = Glibc { major: 2, minor: 34 };

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glibc {
    pub major: u32,
    pub minor: u32,
}

impl std::fmt::Display for Glibc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("it is not a Linux program: {0}")]
    NotAProgram(String),
    #[error("it is built for {found}, but the instances are {}", wanted.as_str())]
    Processor { found: String, wanted: Arch },
    #[error("it needs {needs}, but the glibc of Amazon Linux 2023 is {NEWEST_GLIBC}")]
    Glibc { needs: String },
}

/// Checks a program for AWS instances.
pub fn judge(bytes: &[u8], wanted: Arch) -> Result<(), Unfit> {
    let header = FileHeader64::<Endianness>::parse(bytes).map_err(not_a_program)?;
    let endian = header.endian().map_err(not_a_program)?;
    let found = header.e_machine(endian);
    if found != machine(wanted) {
        return Err(Unfit::Processor { found: name(found), wanted });
    }
    match versions(header, endian, bytes)?.into_iter().find(|version| is_newer(version)) {
        Some(needs) => Err(Unfit::Glibc { needs }),
        None => Ok(()),
    }
}

fn not_a_program(error: object::read::Error) -> Unfit {
    Unfit::NotAProgram(error.to_string())
}

fn machine(arch: Arch) -> Machine {
    match arch {
        Arch::Arm64 => EM_AARCH64,
        Arch::X8664 => EM_X86_64,
    }
}

fn name(machine: Machine) -> String {
    [Arch::Arm64, Arch::X8664].into_iter().find(|arch| self::machine(*arch) == machine).map_or_else(
        || format!("another processor (ELF machine {})", machine.0),
        |arch| arch.as_str().to_owned(),
    )
}

/// Returns the symbol versions that a program needs of its libraries; none for a static program.
fn versions(
    header: &FileHeader64<Endianness>,
    endian: Endianness,
    bytes: &[u8],
) -> Result<Vec<String>, Unfit> {
    let sections = header.sections(endian, bytes).map_err(not_a_program)?;
    if sections.is_empty() {
        return Err(Unfit::NotAProgram(
            "its section headers are stripped, so the glibc it needs is unknown".to_owned(),
        ));
    }
    let Some((mut needs, strings)) = sections.gnu_verneed(endian, bytes).map_err(not_a_program)? else {
        return Ok(Vec::new());
    };
    let strings: SectionIndex = strings;
    let strings = sections.strings(endian, bytes, strings).map_err(not_a_program)?;
    let mut found = Vec::new();
    while let Some((_, mut of_library)) = needs.next().map_err(not_a_program)? {
        while let Some(version) = of_library.next().map_err(not_a_program)? {
            let name = version.name(endian, strings).map_err(not_a_program)?;
            found.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(found)
}

/// Returns whether Amazon Linux lacks a version. `GLIBC_2.35` is newer; so is a version without a number,
/// `GLIBC_ABI_DT_RELR` (2.36) and `GLIBC_PRIVATE`.
fn is_newer(version: &str) -> bool {
    let Some(number) = version.strip_prefix("GLIBC_") else { return false };
    glibc(number).is_none_or(|needed| needed > NEWEST_GLIBC)
}

fn glibc(number: &str) -> Option<Glibc> {
    let mut parts = number.split('.').map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else { return None };
    Some(Glibc { major, minor })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns this test program, which is a program for this machine.
    fn this_program() -> Vec<u8> {
        std::fs::read(std::env::current_exe().expect("it runs")).expect("readable")
    }

    /// Returns this program with every mention of a version replaced by another of the same length.
    fn asking_for(version: &[u8; 10]) -> Vec<u8> {
        let mut bytes = this_program();
        let old = b"GLIBC_2.2.5";
        let at: Vec<usize> =
            bytes.windows(old.len()).enumerate().filter(|(_, w)| w == old).map(|(at, _)| at).collect();
        assert!(!at.is_empty(), "programs for x86_64 ask for the first version there was");
        for at in at {
            bytes[at..at + version.len()].copy_from_slice(version);
            bytes[at + version.len()] = 0;
        }
        bytes
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, expected) in [
            ("GLIBC_2.2.5", false),
            ("GLIBC_2.4", false),
            ("GLIBC_2.34", false),
            ("GLIBC_2.35", true),
            ("GLIBC_2.100", true),
            ("GLIBC_3.0", true),
            ("GLIBC_ABI_DT_RELR", true),
            ("GLIBC_PRIVATE", true),
            ("GCC_4.2.0", false),
        ] {
            assert_eq!(is_newer(version), expected, "{version}");
        }
    }

    #[test]
    fn a_program_of_another_processor_is_refused() {
        let other = match Arch::host() {
            Arch::Arm64 => Arch::X8664,
            Arch::X8664 => Arch::Arm64,
        };
        let refused = judge(&this_program(), other).expect_err("it is for this machine");
        let found = Arch::host().as_str().to_owned();
        assert_eq!(refused, Unfit::Processor { found, wanted: other });
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_program_that_needs_a_newer_glibc_is_refused() {
        let refused = judge(&asking_for(b"GLIBC_2.99"), Arch::host()).expect_err("too new");
        assert_eq!(refused, Unfit::Glibc { needs: "GLIBC_2.99".to_owned() });
        let versions_of = |bytes: &[u8]| {
            let header = FileHeader64::<Endianness>::parse(bytes).expect("a program");
            versions(header, Endianness::Little, bytes).expect("readable")
        };
        assert!(versions_of(&asking_for(b"GLIBC_2.33")).contains(&"GLIBC_2.33".to_owned()));
    }

    #[test]
    fn a_truncated_or_foreign_file_is_refused_without_a_panic() {
        let whole = this_program();
        for bytes in
            [&b""[..], b"#!/bin/sh\necho no\n", &whole[..40], &whole[..100], &whole[..whole.len() / 2]]
        {
            let refused = judge(bytes, Arch::host()).expect_err("no program");
            assert!(matches!(refused, Unfit::NotAProgram(_)), "{} bytes: {refused}", bytes.len());
        }
    }
}
