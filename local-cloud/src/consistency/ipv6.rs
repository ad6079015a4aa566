//! IPv6 blocks of VPCs and subnets: their values, and the time of their association.
//!
//! The emulator gives every VPC a block of one small range at once. Here the block is drawn from all that
//! Amazon could assign, and takes a moment to be associated. Only the texts are changed: the emulator keeps
//! its own block, which replaces the drawn one in every request, and the other way round in every answer. The
//! emulator takes a subnet's block unchanged.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use ipnet::Ipv6Net;

use super::seed::Seed;
use crate::xml::Element;

/// The ranges of Amazon's blocks for VPCs (ip-ranges.json, service EC2).
const RANGES: [&str; 3] = ["2600:1f00::/24", "2406:da00::/24", "2a05:d000::/25"];

/// Milliseconds until a VPC's block is associated. On AWS it is seconds; Terraform starts looking after ten.
const VPC_TAKES: (u64, u64) = (300, 1800);
/// The same for a subnet's block; half of the blocks take no time.
const SUBNET_TAKES: (u64, u64) = (100, 700);

#[derive(Debug)]
pub(super) struct Blocks {
    seed: Seed,
    /// The VPCs' blocks, by the id of the association.
    associations: BTreeMap<String, Association>,
    subnets: BTreeMap<String, Subnet>,
    made: u32,
}

#[derive(Debug)]
struct Association {
    vpc: String,
    /// The emulator's block, as it writes it.
    inside: String,
    block: Ipv6Net,
    /// An earlier block of the VPC, which the list may show first.
    before: Option<Ipv6Net>,
    since: Instant,
    takes: Duration,
    is_over: bool,
}

#[derive(Debug)]
struct Subnet {
    vpc: String,
    /// By the id of the association: the block, and when it is associated.
    blocks: BTreeMap<String, (Ipv6Net, Instant)>,
}

/// Why a subnet cannot have a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    NoBlock,
    Outside,
    Overlaps,
}

impl Blocks {
    pub(super) fn new(seed: Seed) -> Self {
        Self { seed, associations: BTreeMap::new(), subnets: BTreeMap::new(), made: 0 }
    }

    /// Records the blocks of a new VPC in the emulator's answer, or a block added to an existing one.
    pub(super) fn vpc_made(&mut self, answer: &Element, now: Instant) {
        let Some(vpc) = answer.text_of("vpcId") else { return };
        for (id, inside) in associations(answer) {
            if self.associations.contains_key(id) {
                continue;
            }
            self.made += 1;
            let number = self.made.to_string();
            let words = |what| ["ipv6 block", &number, what];
            let before = self.seed.one_in(4, &words("had another")).then(|| self.block(&words("before")));
            let association = Association {
                vpc: vpc.to_owned(),
                inside: inside.to_owned(),
                block: self.block(&words("block")),
                before,
                since: now,
                takes: self.seed.millis(VPC_TAKES, &words("takes")),
                is_over: false,
            };
            self.associations.insert(id.to_owned(), association);
        }
    }

    pub(super) fn disassociated(&mut self, association: &str) {
        if let Some(association) = self.associations.get_mut(association) {
            association.is_over = true;
        }
        for subnet in self.subnets.values_mut() {
            subnet.blocks.remove(association);
        }
    }

    pub(super) fn subnet_made(&mut self, answer: &Element, now: Instant) {
        let Some(id) = answer.text_of("subnetId") else { return };
        if let Some(vpc) = answer.text_of("vpcId") {
            let subnet = || Subnet { vpc: vpc.to_owned(), blocks: BTreeMap::new() };
            self.subnets.entry(id.to_owned()).or_insert_with(subnet);
        }
        let made = self.subnets.len().to_string();
        let Some(subnet) = self.subnets.get_mut(id) else { return };
        for (association, block) in associations(answer) {
            let words = ["subnet's block", &made, block];
            let takes = match self.seed.one_in(2, &words) {
                true => Duration::ZERO,
                false => self.seed.millis(SUBNET_TAKES, &words),
            };
            if let Ok(block) = block.parse() {
                subnet.blocks.insert(association.to_owned(), (block, now + takes));
            }
        }
    }

    pub(super) fn subnet_deleted(&mut self, subnet: &str) {
        self.subnets.remove(subnet);
    }

    /// Returns whether the VPC waits for a block that is not associated yet.
    pub(super) fn is_associating(&self, vpc: &str, now: Instant) -> bool {
        self.of_vpc(vpc).any(|association| now < association.since + association.takes)
    }

    pub(super) fn vpc_of(&self, subnet: &str) -> Option<&str> {
        self.subnets.get(subnet).map(|subnet| subnet.vpc.as_str())
    }

    /// Returns whether a new subnet of the VPC can have this block.
    pub(super) fn fits(&self, vpc: &str, block: &str, now: Instant) -> Result<(), Unfit> {
        let block: Ipv6Net = block.parse().map_err(|_| Unfit::NoBlock)?;
        if block.addr() != block.network() {
            return Err(Unfit::NoBlock);
        }
        let is_in = |association: &Association| {
            now >= association.since + association.takes && association.block.contains(&block)
        };
        if !self.of_vpc(vpc).any(is_in) {
            return Err(Unfit::Outside);
        }
        let of_vpc = self.subnets.values().filter(|subnet| subnet.vpc == vpc);
        let mut taken = of_vpc.flat_map(|subnet| subnet.blocks.values()).map(|(taken, _)| taken);
        if taken.any(|taken| taken.contains(&block) || block.contains(taken)) {
            return Err(Unfit::Overlaps);
        }
        Ok(())
    }

    fn of_vpc(&self, vpc: &str) -> impl Iterator<Item = &Association> {
        self.associations.values().filter(move |association| association.vpc == vpc && !association.is_over)
    }

    /// Returns an answer with the blocks that callers know.
    pub(super) fn outwards(&self, answer: Bytes) -> Bytes {
        let text = String::from_utf8_lossy(&answer);
        let changes: Vec<(&str, String)> = self
            .associations
            .values()
            .filter(|association| text.contains(&association.inside))
            .map(|association| (association.inside.as_str(), association.block.to_string()))
            .collect();
        if changes.is_empty() {
            return answer;
        }
        let changed =
            changes.iter().fold(text.into_owned(), |text, (inside, block)| text.replace(inside, block));
        Bytes::from(changed)
    }

    /// Returns a request's value with the emulator's block; `None` if it needs no change.
    pub(super) fn inwards(&self, value: &str) -> Option<&str> {
        let block: Ipv6Net = value.parse().ok()?;
        let mut all = self.associations.values();
        all.find(|association| association.block == block).map(|association| association.inside.as_str())
    }

    /// Shows VPCs as EC2 does now; returns whether one is associating, and whether one had an earlier block.
    pub(super) fn show_vpcs(&self, answer: &mut Element, now: Instant) -> (bool, bool) {
        let (mut associating, mut had_before) = (false, false);
        // A reply to the call that makes a block has only that block.
        let is_list_of_vpcs = answer.find_mut("vpcSet").is_some();
        answer.each(&mut |element| {
            if !is_list_of_blocks(element) {
                return;
            }
            let mut before = Vec::new();
            for item in items(element) {
                let Some(known) = item.text_of("associationId").and_then(|id| self.associations.get(id))
                else {
                    continue;
                };
                before.extend(known.before.filter(|_| is_list_of_vpcs).map(disassociated));
                if !known.is_over && now < known.since + known.takes {
                    associating = true;
                    item.set("ipv6CidrBlock", "");
                    item.set("state", "associating");
                }
            }
            had_before |= !before.is_empty();
            element.children.splice(0..0, before);
        });
        (associating, had_before)
    }

    /// Shows subnets as EC2 does now; returns whether one is associating.
    pub(super) fn show_subnets(&self, answer: &mut Element, now: Instant) -> bool {
        let ready: BTreeMap<&str, Instant> = self
            .subnets
            .values()
            .flat_map(|subnet| &subnet.blocks)
            .map(|(id, (_, ready))| (id.as_str(), *ready))
            .collect();
        let mut associating = false;
        answer.each(&mut |element| {
            if !is_list_of_blocks(element) {
                return;
            }
            for item in items(element) {
                let ready = item.text_of("associationId").and_then(|id| ready.get(id));
                if ready.is_some_and(|ready| now < *ready) {
                    associating = true;
                    item.set("state", "associating");
                } else if let Some(word) = item.text_of("state").and_then(in_quotes).map(str::to_owned) {
                    item.set("state", &word);
                }
            }
        });
        associating
    }

    fn block(&self, words: &[&str; 3]) -> Ipv6Net {
        let [range, bits, zero] =
            ["range", "bits", "zero"].map(|what| self.seed.draw(&[&words[..], &[what]].concat()));
        let ranges = RANGES.len() as u64;
        let range: Ipv6Net = RANGES
            .into_iter()
            .cycle()
            .nth(usize::try_from(range % ranges).unwrap_or_default())
            .and_then(|range| range.parse().ok())
            .expect("the ranges are blocks");
        // The first 64 bits: the range's bits, then any, and none after the 56th.
        let own = u64::MAX >> range.prefix_len();
        let first = u64::try_from(range.network().to_bits() >> 64).unwrap_or_default();
        let mut first = (first | (bits & own)) & !0xff;
        if zero.is_multiple_of(4) {
            first &= !0xffff;
        }
        Ipv6Net::new(Ipv6Addr::from_bits(u128::from(first) << 64), 56).expect("56 is a prefix of IPv6")
    }
}

const LIST: &str = "ipv6CidrBlockAssociationSet";
const SINGLE: &str = "ipv6CidrBlockAssociation";

fn is_list_of_blocks(element: &Element) -> bool {
    element.name == LIST || element.name == SINGLE
}

/// Returns the associations in a list, or the single one.
fn items(element: &mut Element) -> Vec<&mut Element> {
    if element.name == SINGLE { vec![element] } else { element.children.iter_mut().collect() }
}

/// Returns ids and blocks of all associations of IPv6 blocks in an answer.
fn associations(answer: &Element) -> Vec<(&str, &str)> {
    let lists = answer.all(LIST).into_iter().flat_map(|list| list.children.iter());
    let all = lists.chain(answer.all(SINGLE));
    all.filter_map(|item| Some((item.text_of("associationId")?, item.text_of("ipv6CidrBlock")?))).collect()
}

fn disassociated(block: Ipv6Net) -> Element {
    let id = block.to_string().chars().filter(char::is_ascii_hexdigit).collect::<String>();
    let state = Element::parent("ipv6CidrBlockState", vec![Element::leaf("state", "disassociated")]);
    Element::parent(
        "item",
        vec![
            Element::leaf("associationId", &format!("vpc-cidr-assoc-{id:0>17}")),
            Element::leaf("ipv6CidrBlock", &block.to_string()),
            state,
            Element::leaf("ipv6Pool", "Amazon"),
        ],
    )
}

/// The emulator writes the state of a subnet's block as `{'State': 'associated'}`.
fn in_quotes(text: &str) -> Option<&str> {
    text.strip_prefix('{')?.rsplit('\'').nth(1)
}

#[cfg(test)]
mod tests;
