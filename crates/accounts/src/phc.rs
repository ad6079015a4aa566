//! argon2id and the stored PHC string.
//!
//! An evaluation works in an [`Arena`] that its caller keeps. Allocating 19 MiB for each costs a seventh of
//! the time, and memory that is allocated in advance cannot run out.

use std::fmt;
use std::str::FromStr;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use subtle::ConstantTimeEq as _;

const OUTPUT_BYTES: usize = 32;

/// Costs that OWASP's Password Storage sheet calls equally strong: memory in KiB, and passes.
const STRONG_ENOUGH: [(u32, u32); 5] = [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5)];
/// Memory is bought once for each core, time with each sign-in; more of either is a mistake.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
/// A record is data from outside this process; it must not cost hours of a core.
const MAX_PASSES: u32 = 16;

/// The work of one evaluation.
///
/// The default is OWASP's second set (19 MiB, 2 passes), also the least that ASVS 5.0 accepts at 2
/// passes. Half would fall below both; double would halve the sign-ins per core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost(Params);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CostError {
    #[error("`{0}` is not of the form `m=19456,t=2,p=1`")]
    Form(String),
    #[error(
        "m={0},t={1} is weaker than OWASP accepts; use at least m=47104,t=1, m=19456,t=2, m=12288,t=3, \
         m=9216,t=4 or m=7168,t=5"
    )]
    TooWeak(u32, u32),
    #[error("m={0},t={1} is too much; m is at most {MAX_MEMORY_KIB} and t at most {MAX_PASSES}")]
    TooMuch(u32, u32),
    #[error("only one lane is used here; write p=1")]
    Lanes,
}

impl Cost {
    fn new(memory_kib: u32, passes: u32) -> Self {
        let params = Params::new(memory_kib, passes, 1, Some(OUTPUT_BYTES));
        Self(params.expect("bounds were checked"))
    }

    pub fn memory_kib(&self) -> u32 {
        self.0.m_cost()
    }
}

impl Default for Cost {
    fn default() -> Self {
        Self::new(19_456, 2)
    }
}

impl FromStr for Cost {
    type Err = CostError;

    fn from_str(text: &str) -> Result<Self, CostError> {
        let form = || CostError::Form(text.chars().take(40).collect());
        let mut fields = text.split(',');
        let mut field = |name: &str| {
            let value = fields.next().and_then(|field| field.trim().strip_prefix(name));
            value.and_then(|value| value.parse::<u32>().ok()).ok_or_else(form)
        };
        let (memory, passes, lanes) = (field("m=")?, field("t=")?, field("p=")?);
        if fields.next().is_some() {
            return Err(form());
        }
        if lanes != 1 {
            return Err(CostError::Lanes);
        }
        if memory > MAX_MEMORY_KIB || passes > MAX_PASSES {
            return Err(CostError::TooMuch(memory, passes));
        }
        if !STRONG_ENOUGH.iter().any(|(m, t)| memory >= *m && passes >= *t) {
            return Err(CostError::TooWeak(memory, passes));
        }
        Ok(Self::new(memory, passes))
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m={},t={},p=1", self.0.m_cost(), self.0.t_cost())
    }
}

/// The memory of an evaluation; it holds one at a time.
pub struct Arena(Vec<Block>);

impl Arena {
    /// Accepts records of this cost and of the default one: lowering the cost must not lock out users who
    /// chose their password earlier.
    pub fn new(cost: &Cost) -> Self {
        Self(vec![Block::new(); blocks(cost)])
    }
}

fn blocks(cost: &Cost) -> usize {
    cost.0.block_count().max(Cost::default().0.block_count())
}

#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the stored password record cannot be read")]
pub struct Unreadable;

/// A parsed stored password.
#[derive(Clone, Debug)]
pub struct Phc {
    params: Params,
    version: Version,
    salt: Salt,
    output: Output,
}

impl Phc {
    /// Parses a record that fits an arena of `cost`.
    pub fn parse(text: &str, cost: &Cost) -> Result<Self, Unreadable> {
        let hash = PasswordHash::new(text).map_err(|_| Unreadable)?;
        let params = Params::try_from(&hash).map_err(|_| Unreadable)?;
        let version = hash.version.map_or(Ok(Version::V0x13), Version::try_from);
        let fits = params.block_count() <= blocks(cost) && params.t_cost() <= MAX_PASSES;
        if hash.algorithm != Algorithm::Argon2id.ident() || !fits {
            return Err(Unreadable);
        }
        Ok(Self {
            params,
            version: version.map_err(|_| Unreadable)?,
            salt: hash.salt.ok_or(Unreadable)?,
            output: hash.hash.ok_or(Unreadable)?,
        })
    }

    /// Returns whether it was made at this cost.
    pub fn has(&self, cost: &Cost) -> bool {
        let of = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
        of(&self.params) == of(&cost.0)
    }

    /// Returns whether this is the password. Takes equally long for both answers.
    pub fn verify(&self, arena: &mut Arena, password: &[u8]) -> bool {
        let mut output = vec![0; self.output.len()];
        let blocks = self.params.block_count();
        let hashed = Argon2::new(Algorithm::Argon2id, self.version, self.params.clone())
            .hash_password_into_with_memory(
                password,
                self.salt.as_ref(),
                &mut output,
                &mut arena.0[..blocks],
            );
        hashed.is_ok() && output.ct_eq(self.output.as_bytes()).into()
    }
}

/// Returns the PHC string of a password, with a new salt. The arena must be one of this cost.
pub fn hash(arena: &mut Arena, cost: &Cost, password: &[u8]) -> String {
    let salt = Salt::new(&rand::random::<[u8; 16]>()).expect("16 bytes are a salt");
    let mut output = [0; OUTPUT_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, cost.0.clone())
        .hash_password_into_with_memory(
            password,
            salt.as_ref(),
            &mut output,
            &mut arena.0[..cost.0.block_count()],
        )
        .expect("a password of bounded length can be hashed");
    PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&cost.0).expect("the parameters have a text form"),
        salt: Some(salt),
        hash: Some(Output::new(&output).expect("32 bytes are an output")),
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifies_what_it_hashes() {
        let cost = Cost::default();
        let mut arena = Arena::new(&cost);
        let text = hash(&mut arena, &cost, b"zzyzx road");
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        let phc = Phc::parse(&text, &cost).expect("its own record");
        assert!(phc.verify(&mut arena, b"zzyzx road"));
        assert!(!phc.verify(&mut arena, b"zzyzx roae"));
        assert!(phc.has(&cost) && !phc.has(&Cost::new(7168, 5)));
    }

    #[test]
    fn records_of_another_cost_are_read_whichever_is_greater() {
        let (small, default) = (Cost::new(7168, 5), Cost::default());
        for (made, now) in [(&small, &default), (&default, &small)] {
            let text = hash(&mut Arena::new(made), made, b"zzyzx road");
            let phc = Phc::parse(&text, now).expect("readable");
            assert!(phc.verify(&mut Arena::new(now), b"zzyzx road"), "made at {made}, read at {now}");
            assert!(!phc.has(now));
        }
    }

    #[test]
    fn foreign_records_are_unreadable() {
        for text in [
            "",
            "hunter2",
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0",
            "$argon2i$v=19$m=256,t=2,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=1048576,t=2,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2id$v=19$m=256,t=4000000,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(Phc::parse(text, &Cost::default()).err(), Some(Unreadable), "{text}");
        }
    }

    #[test]
    fn a_cost_is_one_that_owasp_accepts() {
        for good in ["m=19456,t=2,p=1", "m=7168,t=5,p=1", "m=47104, t=1, p=1", "m=65536,t=3,p=1"] {
            let cost: Cost = good.parse().expect(good);
            assert_eq!(cost.to_string(), good.replace(' ', ""));
        }
        let table = [
            ("", CostError::Form(String::new())),
            ("19456,2,1", CostError::Form("19456,2,1".to_owned())),
            ("m=19456,t=2", CostError::Form("m=19456,t=2".to_owned())),
            ("m=19456,t=2,p=1,x=1", CostError::Form("m=19456,t=2,p=1,x=1".to_owned())),
            ("m=19456,t=2,p=4", CostError::Lanes),
            ("m=19455,t=2,p=1", CostError::TooWeak(19_455, 2)),
            ("m=8,t=1,p=1", CostError::TooWeak(8, 1)),
            ("m=4000000,t=2,p=1", CostError::TooMuch(4_000_000, 2)),
        ];
        for (bad, error) in table {
            assert_eq!(bad.parse::<Cost>(), Err(error), "{bad}");
        }
    }
}
