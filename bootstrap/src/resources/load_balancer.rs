//! A load balancer's instance and its Elastic IP.
//!
//! A stack has one or several addresses. Each is a *place* with a load balancer of its own; the following is
//! about one place.
//!
//! The address is the fence: a load balancer without it gets no traffic, whatever it assumes. Only the first
//! one is launched here. The reconciler replaces a dead load balancer and renews one of an older definition:
//! it can check that a new one serves before it moves the address, and this machine cannot.
//!
//! Both may find an address without a load balancer at the same moment. So this file reads the holder of the
//! address again before each step, and these rules make both safe:
//!
//! | rule | because |
//! |---|---|
//! | nothing is launched and no address moves while a live one has the address | it serves, or the reconciler looks after it |
//! | a live one with the wanted release is not launched again | it may be the reconciler's, or that of a run that was cut |
//! | nothing is launched with a token or an attempt that the reconciler may use | each must know its own launches |
//!
//! The next run finds the remains of an interrupted one. The reconciler also removes load balancers without
//! the address after ten minutes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::Ipv4Addr;

use aws_sdk_ec2::types::{Address, DomainType, Instance, InstanceStateName, ResourceType};
use fleet::aws_code::AwsErrorKind;
use fleet::release::{BalancerSpec, short_hash};
use fleet::stack::{ROLE_LB, StackName, TAG_RELEASE, TAG_ROLE, TAG_SLOT};

use crate::aws::Aws;
use crate::error::{DeployError, Exit, Result, Step as _};
use crate::part::{NEW, Part, RunMode};
use crate::patience::{self, Look};
use crate::resources::instance::{self, Launch};
use crate::resources::network::{id, stack_filter, tagged};

/// More load balancers than `--lbs` allows.
const MOST_PLACES: u32 = 8;
/// Tokens tried for one launch; each used token belongs to an instance of the last days.
const MOST_TOKENS: usize = 20;

/// An Elastic IP of the stack.
#[derive(Clone, Debug)]
pub struct PublicAddress {
    pub place: u32,
    pub allocation: String,
    pub ip: Ipv4Addr,
}

/// Resources at places that the stack no longer has.
#[derive(Clone, Debug, Default)]
pub struct Surplus {
    addresses: Vec<Address>,
    instances: Vec<String>,
}

pub struct LoadBalancer {
    pub address: Ipv4Addr,
}

/// Ensures the load balancer and the association of its address. A plan only reports both.
pub async fn ensure(
    aws: &Aws,
    mode: RunMode,
    address: &PublicAddress,
    spec: &BalancerSpec,
) -> Result<(LoadBalancer, Vec<Part>)> {
    let place = address.place;
    let seen = all(aws, place).await?;
    let holder = holder(aws, mode, place).await?.and_then(|holder| live(&seen, &holder));
    let current = current(&seen, &spec.id).and_then(Instance::instance_id);
    let [launched, moved] = compare(place, &spec.id, current, holder);
    let balancer = LoadBalancer { address: address.ip };
    if !mode.applies(&moved) {
        return Ok((balancer, vec![launched, moved]));
    }
    let instance = match current {
        Some(id) => id.to_owned(),
        // One number higher than all that EC2 shows: a token is not used for two instances.
        None => launch(aws, spec, place, seen.len()).await?,
    };
    instance::wait_until_running(aws, &instance).await?;
    // The wait is long enough for the reconciler to have found a load balancer.
    let holder = self::holder(aws, mode, place).await?;
    let seen = all(aws, place).await?;
    if holder.and_then(|holder| live(&seen, &holder)).is_some() {
        return Ok((balancer, vec![launched, Part::unchanged(moved.what)]));
    }
    associate(aws, &address.allocation, &instance).await?;
    Ok((balancer, vec![launched, moved]))
}

/// Returns whether a load balancer is launched or renewed, and whether it gets the address.
fn compare(place: u32, release: &str, current: Option<&str>, holder: Option<&Instance>) -> [Part; 2] {
    let what = numbered("association of the Elastic IP", place);
    match (holder, current) {
        (Some(holder), _) => {
            let is_current = instance::tag(holder, TAG_RELEASE) == Some(release);
            let renewed = "is replaced by the reconciler, and serves until the new one does";
            let differs = if is_current { Vec::new() } else { vec![renewed.to_owned()] };
            let id = holder.instance_id().unwrap_or_default();
            [Part::compared(format!("load balancer {id}"), differs), Part::unchanged(what)]
        }
        (None, Some(id)) => [Part::unchanged(format!("load balancer {id}")), Part::created(what)],
        (None, None) => [Part::created(numbered("load balancer", place)), Part::created(what)],
    }
}

/// Returns a live instance of this release.
fn current<'a>(seen: &'a [Instance], release: &str) -> Option<&'a Instance> {
    seen.iter().find(|i| is_live(i) && instance::tag(i, TAG_RELEASE) == Some(release))
}

fn live<'a>(seen: &'a [Instance], id: &str) -> Option<&'a Instance> {
    seen.iter().find(|i| is_live(i) && i.instance_id() == Some(id))
}

fn is_live(instance: &Instance) -> bool {
    let state = instance.state().and_then(|state| state.name());
    matches!(state, Some(InstanceStateName::Pending | InstanceStateName::Running))
}

/// Returns the numbered name of a resource; the first has no number.
fn numbered(what: &str, place: u32) -> String {
    if place == 0 { what.to_owned() } else { format!("{what} {}", place + 1) }
}

fn place_of(instance: &Instance) -> u32 {
    instance::tag(instance, TAG_SLOT).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Returns every load balancer of a place that EC2 shows, terminated ones included.
async fn all(aws: &Aws, place: u32) -> Result<Vec<Instance>> {
    let mut seen = everywhere(aws).await?;
    seen.retain(|i| place_of(i) == place);
    Ok(seen)
}

async fn everywhere(aws: &Aws) -> Result<Vec<Instance>> {
    let states = [&instance::NOT_GONE[..], &[InstanceStateName::Terminated]].concat();
    let mut seen = instance::list(aws, &states).await?;
    seen.retain(|i| instance::tag(i, TAG_ROLE) == Some(ROLE_LB));
    Ok(seen)
}

/// Launches in a zone with capacity; each place tries another zone first.
async fn launch(aws: &Aws, spec: &BalancerSpec, place: u32, number: usize) -> Result<String> {
    let mut refused = DeployError::new(Exit::Failed, "the network has no subnet");
    let subnets = &spec.instance.subnets;
    for subnet in subnets.iter().cycle().skip(place as usize).take(subnets.len()) {
        for number in number..number + MOST_TOKENS {
            let group = &spec.instance.security_group;
            let role = numbered(ROLE_LB, place);
            let seed = format!("{group}/{role}/{}/{}/deploy/{number}", spec.id, subnet.id);
            let token = short_hash(seed.as_bytes());
            let launch = Launch { role: ROLE_LB, release: &spec.id, spec: &spec.instance, subnet, place };
            match launch.send(aws, &token).await {
                Ok(id) => return Ok(id),
                Err(error) => refused = error,
            }
            match refused.kind {
                AwsErrorKind::TokenSpent | AwsErrorKind::TokenMismatch => {}
                AwsErrorKind::NoCapacity => break,
                _ => return Err(refused),
            }
        }
    }
    Err(refused)
}

impl LoadBalancer {
    pub fn url(&self) -> String {
        url(&self.address.to_string())
    }
}

/// Returns the definitions that the load balancers with an address were launched from, by their places.
pub async fn released(aws: &Aws) -> Result<BTreeMap<u32, Option<String>>> {
    let (addresses, seen) = tokio::try_join!(find_addresses(aws), everywhere(aws))?;
    let release = |address: &Address| {
        let holder = address.instance_id().and_then(|id| live(&seen, id))?;
        instance::tag(holder, TAG_RELEASE).map(str::to_owned)
    };
    Ok(addresses.iter().map(|(place, address)| (*place, release(address))).collect())
}

pub fn url(address: &str) -> String {
    format!("http://{address}:{}", fleet::PUBLIC_PORT)
}

pub fn https_url(address: &str) -> String {
    format!("https://{address}:{}", fleet::TLS_PORT)
}

async fn associate(aws: &Aws, allocation: &str, instance: &str) -> Result<()> {
    let associate = aws.ec2.associate_address().allocation_id(allocation).instance_id(instance);
    let associate = associate.allow_reassociation(true);
    let associated =
        async || associate.clone().send().await.step(|| "give the load balancer its address".to_owned());
    aws.patience.depends_on(&format!("{instance} and {allocation}"), associated).await.map(drop)
}

/// Ensures the requested number of addresses, or else the existing number, but at least one. Further
/// addresses are not touched yet: the reconciler uses them until the new release leaves them out.
pub async fn ensure_addresses(
    aws: &Aws,
    mode: RunMode,
    wanted: Option<u32>,
) -> Result<(Vec<PublicAddress>, Surplus, Vec<Part>)> {
    let (there, spare) = list_addresses(aws).await?;
    let count = wanted.unwrap_or_else(|| there.keys().max().map_or(1, |place| place + 1));
    let (mut addresses, mut parts) = (Vec::new(), Vec::new());
    for place in 0..count {
        let (address, part) = ensure_address(aws, mode, place, there.get(&place)).await?;
        addresses.push(address);
        parts.push(part);
    }
    let surplus = Surplus {
        addresses: there.range(count..).map(|(_, address)| address.clone()).chain(spare).collect(),
        instances: everywhere(aws)
            .await?
            .iter()
            .filter(|i| is_live(i) && place_of(i) >= count)
            .filter_map(|i| i.instance_id().map(str::to_owned))
            .collect(),
    };
    parts.extend(surplus.parts());
    Ok((addresses, surplus, parts))
}

impl Surplus {
    fn parts(&self) -> Vec<Part> {
        let addresses = self
            .addresses
            .iter()
            .map(|address| Part::removed(format!("Elastic IP {}", address.public_ip().unwrap_or_default())));
        let instances = self.instances.iter().map(|id| Part::removed(format!("load balancer {id}")));
        addresses.chain(instances).collect()
    }

    /// Instances first: a tick that began earlier would replace a load balancer that has lost its address.
    pub async fn remove(&self, aws: &Aws) -> Result<()> {
        for id in &self.instances {
            instance::terminate(aws, id).await?;
        }
        for address in &self.addresses {
            release_address(aws, address).await?;
        }
        Ok(())
    }
}

async fn ensure_address(
    aws: &Aws,
    mode: RunMode,
    place: u32,
    there: Option<&Address>,
) -> Result<(PublicAddress, Part)> {
    if let Some(address) = there {
        let address = public(place, address.allocation_id(), address.public_ip())?;
        let part = Part::unchanged(format!("Elastic IP {}", address.ip));
        return Ok((address, part));
    }
    let part = Part::created(numbered("Elastic IP", place));
    if !mode.applies(&part) {
        let address = PublicAddress { place, allocation: NEW.to_owned(), ip: Ipv4Addr::UNSPECIFIED };
        return Ok((address, part));
    }
    let allocate = aws.ec2.allocate_address().domain(DomainType::Vpc).tag_specifications(tagged(
        aws,
        ResourceType::ElasticIp,
        &name(place),
    ));
    let make = async || {
        let allocated = allocate.clone().customize().config_override(patience::once()).send().await;
        let allocated = allocated.step(|| "allocate an Elastic IP".to_owned())?;
        public(place, allocated.allocation_id(), allocated.public_ip())
    };
    let find = async || {
        let there = find_addresses(aws).await?;
        there.get(&place).map(|it| public(place, it.allocation_id(), it.public_ip())).transpose()
    };
    Ok((aws.patience.made(None, make, find).await?, part))
}

/// Returns the address's name within the stack.
fn name(place: u32) -> String {
    if place == 0 { ROLE_LB.to_owned() } else { format!("{ROLE_LB}-{}", place + 1) }
}

fn public(place: u32, allocation: Option<&str>, ip: Option<&str>) -> Result<PublicAddress> {
    let ip = ip.and_then(|ip| ip.parse().ok()).ok_or_else(|| {
        DeployError::new(Exit::Failed, "AWS answered with an Elastic IP that is not an IPv4 address")
            .hint("Try again.")
    })?;
    Ok(PublicAddress { place, allocation: id(allocation, "address")?, ip })
}

/// Returns the instance that has the address of a place now. A deployment has just allocated the address, or
/// seen it.
async fn holder(aws: &Aws, mode: RunMode, place: u32) -> Result<Option<String>> {
    let look = async || {
        let holder = |address: &Address| address.instance_id().filter(|id| !id.is_empty()).map(str::to_owned);
        Ok(match (find_addresses(aws).await?.get(&place), mode) {
            (Some(address), _) => Look::Reached(holder(address)),
            (None, RunMode::Plan) => Look::Reached(None),
            (None, RunMode::Apply) => Look::NotYet("not visible yet".to_owned()),
        })
    };
    aws.patience.until(&numbered("the Elastic IP", place), patience::SETTLING, look).await
}

/// Returns the stack's first address, if it has one.
pub async fn find_address(aws: &Aws) -> Result<Option<Address>> {
    Ok(find_addresses(aws).await?.remove(&0))
}

/// Returns the stack's addresses by their places.
pub async fn find_addresses(aws: &Aws) -> Result<BTreeMap<u32, Address>> {
    list_addresses(aws).await.map(|(places, _)| places)
}

/// Returns the stack's addresses by their places, and those without a place. `AllocateAddress` takes no
/// client token, so a run that is cut right after it leaves an address that the next run may not see yet.
async fn list_addresses(aws: &Aws) -> Result<(BTreeMap<u32, Address>, Vec<Address>)> {
    let described = aws.ec2.describe_addresses().filters(stack_filter(aws)).send().await;
    let described = described.step(|| "look for the Elastic IP".to_owned())?;
    Ok(placed(&aws.names.stack, described.addresses.unwrap_or_default()))
}

/// Assigns addresses to places. Of several addresses with one name, the address in use has the place; if none
/// is in use, every run chooses the same. An address without a name that Vigia gives has the first place, and
/// is never released as a spare.
fn placed(stack: &StackName, mut addresses: Vec<Address>) -> (BTreeMap<u32, Address>, Vec<Address>) {
    let is_free = |address: &Address| address.association_id().is_none_or(str::is_empty);
    addresses.sort_by_key(|address| (is_free(address), address.allocation_id().map(str::to_owned)));
    let (mut places, mut spare) = (BTreeMap::new(), Vec::new());
    for address in addresses {
        let tags = address.tags().iter();
        let called = tags.clone().find(|tag| tag.key() == Some("Name")).and_then(|tag| tag.value());
        let is_called = |place: &u32| called == Some(stack.resource(&name(*place)).as_str());
        let place = (0..MOST_PLACES).find(is_called);
        match places.entry(place.unwrap_or(0)) {
            Entry::Vacant(free) => drop(free.insert(address)),
            Entry::Occupied(_) if place.is_some() && is_free(&address) => spare.push(address),
            Entry::Occupied(_) => {}
        }
    }
    (places, spare)
}

/// Releases every address of the stack: a leftover address costs money for ever.
pub async fn release_addresses(aws: &Aws) -> Result<Vec<Part>> {
    let described = aws.ec2.describe_addresses().filters(stack_filter(aws)).send().await;
    let described = described.step(|| "look for the Elastic IP".to_owned())?;
    let mut parts = Vec::new();
    for address in described.addresses() {
        release_address(aws, address).await?;
        parts.push(Part::removed(format!("Elastic IP {}", address.public_ip().unwrap_or_default())));
    }
    Ok(parts)
}

async fn release_address(aws: &Aws, address: &Address) -> Result<()> {
    if let Some(association) = address.association_id().filter(|id| !id.is_empty()) {
        let take = aws.ec2.disassociate_address().association_id(association);
        let done = async || take.clone().send().await.step(|| "take the Elastic IP away".to_owned());
        aws.patience.deleted(done).await?;
    }
    let release = aws.ec2.release_address().allocation_id(id(address.allocation_id(), "address")?);
    let released = async || release.clone().send().await.step(|| "release the Elastic IP".to_owned());
    aws.patience.deleted(released).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::types::{InstanceState, Tag};
    use fleet::release::{InstanceSpec, SubnetSpec};

    use super::*;
    use crate::aws::stub::Stub;
    use crate::part::Change;

    fn row(id: &str, release: &str, state: InstanceStateName) -> Instance {
        Instance::builder()
            .instance_id(id)
            .state(InstanceState::builder().name(state).build())
            .tags(Tag::builder().key(TAG_RELEASE).value(release).build())
            .build()
    }

    #[test]
    fn only_a_missing_load_balancer_is_launched() {
        let seen = [
            row("i-1", "old", InstanceStateName::Running),
            row("i-2", "new", InstanceStateName::Pending),
            row("i-3", "gone", InstanceStateName::Terminated),
        ];
        let parts = |release, holder: Option<&str>| {
            let current = current(&seen, release).and_then(Instance::instance_id);
            let holder = holder.and_then(|holder| live(&seen, holder));
            compare(0, release, current, holder).map(|part| part.change)
        };
        use Change::{Created, Unchanged, Updated};
        assert_eq!(parts("old", Some("i-1")), [Unchanged, Unchanged]);
        assert_eq!(parts("new", Some("i-1")), [Updated, Unchanged], "it is renewed, and its address stays");
        assert_eq!(parts("new", Some("i-3")), [Unchanged, Created], "an interrupted run launched it");
        assert_eq!(parts("gone", None), [Created, Created], "the dead are not current");
    }

    #[test]
    fn an_address_left_by_a_cut_run_is_released() {
        let stack: StackName = "a".parse().expect("a name");
        let address = |id: &str, name: Option<&str>, association: Option<&str>| {
            let tag = name.map(|name| Tag::builder().key("Name").value(name).build());
            Address::builder()
                .allocation_id(id)
                .set_tags(tag.map(|tag| vec![tag]))
                .set_association_id(association.map(str::to_owned))
                .build()
        };
        let judged = |addresses: Vec<Address>| {
            let ids = |addresses: &[Address]| -> Vec<String> {
                addresses.iter().filter_map(|it| it.allocation_id().map(str::to_owned)).collect()
            };
            let (places, spare) = placed(&stack, addresses);
            let places: Vec<Address> = places.into_values().collect();
            (ids(&places).join(" "), ids(&spare).join(" "))
        };
        let of = |places: &str, spare: &str| (places.to_owned(), spare.to_owned());
        let (first, second) = (Some("vigia-a-lb"), Some("vigia-a-lb-2"));
        let used = address("e-3", first, Some("eipassoc-1"));
        assert_eq!(
            judged(vec![address("e-1", first, None), address("e-2", second, None), used.clone()]),
            of("e-3 e-2", "e-1")
        );
        let free = [address("e-5", first, None), address("e-4", first, None)];
        assert_eq!(judged(free.to_vec()), of("e-4", "e-5"));
        assert_eq!(judged(vec![address("e-6", None, None), used]), of("e-3", ""));
    }

    #[tokio::test]
    async fn an_address_that_ec2_does_not_list_yet_is_waited_for() {
        let stub = Stub::default().answers("DescribeAddresses", "<addressesSet/>").answers(
            "DescribeAddresses",
            "<addressesSet><item><allocationId>e-1</allocationId><publicIp>192.0.2.1</publicIp>\
             <instanceId>i-1</instanceId></item></addressesSet>",
        );
        let holder = holder(&stub.serve().await, RunMode::Apply, 0).await.expect("it is listed");
        assert_eq!((holder.as_deref(), stub.count("DescribeAddresses")), (Some("i-1"), 2));
    }

    const LAUNCHED: &str = "<instancesSet><item><instanceId>i-1</instanceId></item></instancesSet>";

    fn spec() -> BalancerSpec {
        let subnet = |zone: &str| SubnetSpec { id: format!("subnet-{zone}"), zone: zone.to_owned() };
        let spec = InstanceSpec { subnets: vec![subnet("a"), subnet("b")], ..instance::example() };
        BalancerSpec::new("e-1".to_owned(), spec)
    }

    #[tokio::test]
    async fn a_launch_goes_on_in_another_zone_or_with_another_token() {
        for code in ["Unsupported", "InsufficientInstanceCapacity", "IdempotentInstanceTerminated"] {
            let stub = Stub::default().refuses("RunInstances", code).answers("RunInstances", LAUNCHED);
            let launched = launch(&stub.serve().await, &spec(), 0, 0).await;
            assert_eq!((launched.expect(code), stub.count("RunInstances")), ("i-1".to_owned(), 2), "{code}");
        }
    }

    #[tokio::test]
    async fn an_address_that_got_a_holder_meanwhile_does_not_move() {
        let listed = |id: &str| {
            format!(
                "<reservationSet><item><instancesSet><item><instanceId>{id}</instanceId>\
                 <instanceState><name>running</name></instanceState>\
                 <tagSet><item><key>{TAG_ROLE}</key><value>{ROLE_LB}</value></item></tagSet>\
                 </item></instancesSet></item></reservationSet>"
            )
        };
        let address = |holder: &str| {
            format!(
                "<addressesSet><item><allocationId>e-1</allocationId><publicIp>192.0.2.1</publicIp>\
                 <instanceId>{holder}</instanceId></item></addressesSet>"
            )
        };
        let stub = Stub::default()
            .answers("DescribeInstances", "<reservationSet/>")
            .answers("DescribeInstances", &listed("i-1"))
            .answers("DescribeInstances", &listed("i-2"))
            .answers("DescribeAddresses", &address(""))
            .answers("DescribeAddresses", &address("i-2"))
            .answers("RunInstances", LAUNCHED)
            .answers("AssociateAddress", "<return>true</return>");
        let aws = stub.serve().await;
        let ip = Ipv4Addr::new(192, 0, 2, 1);
        let address = PublicAddress { place: 0, allocation: "e-1".to_owned(), ip };
        let (_, parts) =
            ensure(&aws, RunMode::Apply, &address, &spec()).await.expect("the reconciler's serves");
        assert_eq!(parts[1].change, Change::Unchanged);
        assert_eq!((stub.count("RunInstances"), stub.count("AssociateAddress")), (1, 0));
    }
}
