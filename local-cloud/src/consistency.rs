//! How AWS answers in the first seconds after something is made. An emulator knows a new resource at once;
//! AWS does not, and a deployer that relies on it fails on its first real run.
//!
//! | File | Rules |
//! |---|---|
//! | `young.rs` | which calls know something new |
//! | `network.rs`, `ipv6.rs` | EC2: not found, not listed, still listed; IPv6 blocks |
//! | `iam.rs`, `lambda.rs`, `s3.rs` | the other services |
//! | `pass.rs` | how a call and its answer go through the rules |
//!
//! Either a call is refused before anything is done, or the answer to a read is changed: the emulators' state
//! is always right. This module reads no clock, and draws everything from a [`Seed`].

mod behaviour;
mod iam;
mod ipv6;
mod lambda;
mod network;
pub(crate) mod pass;
mod s3;
mod seed;
mod young;

use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::http::{Response, StatusCode};
use parking_lot::{Mutex, MutexGuard};

pub use behaviour::{Behaviour, Report};
pub use seed::Seed;

use crate::call::Admitted;
use crate::call::Call;
use crate::reply::refusal;
use crate::xml::Element;
use ipv6::{Blocks, Unfit};
use lambda::Functions;
use network::Lingering;
use s3::Buckets;
use young::Young;

/// The local cloud's record of the last seconds.
#[derive(Debug)]
pub struct Consistency {
    seed: Seed,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    young: Young,
    blocks: Blocks,
    lingering: Lingering,
    buckets: Buckets,
    functions: Functions,
    report: Report,
}

/// A refusal in AWS's words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    behaviour: Behaviour,
    status: u16,
    code: &'static str,
    message: String,
}

fn refused(behaviour: Behaviour, status: u16, code: &'static str, message: String) -> Refused {
    Refused { behaviour, status, code, message }
}

impl Consistency {
    pub fn new(seed: Seed) -> Self {
        let state = State {
            young: Young::new(seed),
            blocks: Blocks::new(seed),
            lingering: Lingering::default(),
            buckets: Buckets::new(seed),
            functions: Functions::new(seed),
            report: Report { seed: seed.0, ..Report::default() },
        };
        Self { seed, state: Mutex::new(state) }
    }

    pub fn seed(&self) -> u64 {
        self.seed.0
    }

    pub fn report(&self, now: Instant) -> Report {
        let state = self.lock();
        Report { young: state.young.list(now), ..state.report.clone() }
    }

    /// Returns the refusal of a call that comes too early.
    fn refuse(&self, call: &Call, target: &Target, now: Instant) -> Option<Refused> {
        let State { young, buckets, functions, .. } = &mut *self.lock();
        match target {
            Target::Ec2 => network::refuse(young, self.seed, call, now),
            Target::Iam => iam::refuse(young, call, now),
            Target::S3(target) => buckets.refuse(young, target, now),
            Target::Lambda(target) => functions.refuse(young, target, now),
            Target::Other => None,
        }
    }

    /// Returns the refusal of a subnet's IPv6 block that cannot lie there.
    fn refuse_block(&self, call: &Call, now: Instant) -> Option<Refused> {
        let is_about_blocks = matches!(call.action.as_str(), "CreateSubnet" | "AssociateSubnetCidrBlock");
        let block = call.parameter("Ipv6CidrBlock").filter(|_| is_about_blocks)?;
        let state = self.lock();
        let of_subnet = call.parameter("SubnetId").and_then(|subnet| state.blocks.vpc_of(subnet));
        let vpc = call.parameter("VpcId").or(of_subnet)?;
        let (code, message) = match state.blocks.fits(vpc, block, now).err()? {
            Unfit::NoBlock => {
                ("InvalidParameterValue", format!("invalid value for parameter ipv6-cidr-block: {block}"))
            }
            Unfit::Outside => ("InvalidSubnet.Range", format!("The IPv6 CIDR '{block}' is invalid.")),
            Unfit::Overlaps => {
                ("InvalidSubnet.Conflict", format!("The CIDR '{block}' conflicts with another subnet"))
            }
        };
        Some(refused(Behaviour::OutsideBlock, 400, code, message))
    }

    /// Records a successful answer of EC2, and returns it as AWS would give it now.
    fn ec2_answered(&self, call: &Call, body: Bytes, now: Instant) -> Bytes {
        let state = &mut *self.lock();
        if network::makes(call) {
            state.learn(call, &body, now);
        }
        if let Some(id) = network::deletes(call) {
            state.young.deleted(id);
            state.blocks.subnet_deleted(id);
            state.lingering.deleted(self.seed, id, now);
        }
        if call.action.starts_with("Disassociate") {
            state.blocks.disassociated(call.parameter("AssociationId").unwrap_or(""));
        }
        let body = state.blocks.outwards(body);
        if !network::makes(call) && !network::lists(call) {
            return body;
        }
        let Ok(mut answer) = Element::parse(&body) else { return body };
        let shown = state.show(call, &mut answer, now);
        for behaviour in &shown {
            state.report.count(*behaviour, &call.caller.name);
        }
        // The emulator writes the states of subnets' blocks in its own format.
        let is_changed = !shown.is_empty() || call.action.contains("Subnet");
        if is_changed { Bytes::from(answer.write_ec2()) } else { body }
    }

    /// Records the changes of IAM or S3.
    fn answered(&self, call: &Call, target: &Target, body: &[u8], now: Instant) {
        let State { young, buckets, .. } = &mut *self.lock();
        match target {
            Target::Iam => iam::answered(young, call, now),
            Target::S3(target) => buckets.answered(young, target, body, now),
            Target::Ec2 | Target::Lambda(_) | Target::Other => {}
        }
    }

    fn count(&self, behaviour: Behaviour, call: &Call) {
        self.lock().report.count(behaviour, &call.caller.name);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// Records the resources made according to the emulator's own answer.
    fn learn(&mut self, call: &Call, body: &[u8], now: Instant) {
        let Ok(answer) = Element::parse(body) else { return };
        network::made(&mut self.young, call, &answer, now);
        match call.action.as_str() {
            "CreateVpc" | "AssociateVpcCidrBlock" => self.blocks.vpc_made(&answer, now),
            "CreateSubnet" | "AssociateSubnetCidrBlock" => self.blocks.subnet_made(&answer, now),
            _ => {}
        }
    }

    /// Changes an answer of EC2, and returns the kinds of the changes.
    fn show(&mut self, call: &Call, answer: &mut Element, now: Instant) -> Vec<Behaviour> {
        let mut shown = Vec::new();
        let mut note = |is_shown: bool, behaviour| shown.extend(is_shown.then_some(behaviour));
        // Before anything is left out: it remembers the whole list.
        note(self.lingering.put_back(call, answer, now), Behaviour::StillListed);
        note(network::leave_out(&mut self.young, call, answer, now), Behaviour::NotListed);
        match call.action.as_str() {
            "CreateVpc" | "AssociateVpcCidrBlock" | "DescribeVpcs" => {
                let (associating, had_before) = self.blocks.show_vpcs(answer, now);
                note(associating, Behaviour::BlockAssociating);
                note(had_before, Behaviour::DisassociatedFirst);
            }
            "CreateSubnet" | "AssociateSubnetCidrBlock" | "DescribeSubnets" => {
                note(self.blocks.show_subnets(answer, now), Behaviour::SubnetAssociating);
            }
            _ => {}
        }
        shown
    }
}

/// The target of a call, by its service.
#[derive(Debug)]
enum Target {
    Ec2,
    Iam,
    S3(s3::Target),
    Lambda(lambda::Target),
    Other,
}

impl Target {
    fn of(admitted: &Admitted) -> Self {
        match admitted.service.as_str() {
            "ec2" => Self::Ec2,
            "iam" => Self::Iam,
            "s3" => Self::S3(s3::Target::of(admitted)),
            "lambda" => Self::Lambda(lambda::Target::of(admitted)),
            _ => Self::Other,
        }
    }
}

impl Refused {
    fn response(&self, service: &str) -> Response<Body> {
        let status = StatusCode::from_u16(self.status).expect("the rules have statuses of HTTP");
        refusal(service, status, self.code, &self.message)
    }
}

#[cfg(test)]
mod tests;
