//! Security groups and their rules.
//!
//! A missing rule is made. On ports that are closed to others, an unwanted rule is removed after the wanted
//! ones are made, so that no allowed client is locked out.
//!
//! All egress is open. EC2 opens a new group itself, but towards IPv6 only if the VPC's IPv6 block is
//! associated by then. So both families are compared, and the missing one is opened.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::builders::IpPermissionBuilder;
use aws_sdk_ec2::types::{IpPermission, IpRange, Ipv6Range, ResourceType, SecurityGroup, UserIdGroupPair};
use fleet::PUBLIC_PORT;

use super::{Site, exists_is_fine, filter, id, stack_filter, tagged};
use crate::aws::Aws;
use crate::blueprint::{self, Group, Rule, Source};
use crate::cidr::Cidr;
use crate::error::{Result, Step as _, found};
use crate::part::{NEW, Part};

/// EC2's name for all protocols and ports.
const EVERYTHING: &str = "-1";

/// An existing group: its id, and the sources that may reach its ports.
#[derive(Clone, Debug)]
pub(super) struct There {
    id: String,
    open: Vec<Open>,
    /// Blocks that it allows all egress to.
    out: Vec<Cidr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Open {
    port: u16,
    to: To,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum To {
    Block(Cidr),
    /// The id of a group.
    Group(String),
}

/// Returns the blocks that may reach the load balancer now; `None` if it was never opened to any.
pub(super) fn blocks(there: &BTreeMap<String, There>) -> Option<Vec<Cidr>> {
    let group = there.get(blueprint::LB)?;
    let blocks: Vec<Cidr> = group
        .open
        .iter()
        .filter(|open| open.port == PUBLIC_PORT)
        .filter_map(|open| match open.to {
            To::Block(block) => Some(block),
            To::Group(_) => None,
        })
        .collect();
    (!blocks.is_empty()).then_some(blocks)
}

impl Site<'_> {
    /// Returns the groups by their names within the stack.
    pub(super) async fn find_groups(&self) -> Result<BTreeMap<String, There>> {
        let Some(filters) = self.filters() else { return Ok(BTreeMap::new()) };
        let described = self.aws.ec2.describe_security_groups().set_filters(Some(filters)).send().await;
        let described = described.step(|| "look for the security groups".to_owned())?;
        let prefix = self.aws.names.stack.resource("");
        let mut there = BTreeMap::new();
        for group in described.security_groups() {
            let Some(what) = group.group_name().and_then(|name| name.strip_prefix(&prefix)) else { continue };
            let there_now =
                There { id: id(group.group_id(), "security group")?, open: open(group), out: out(group) };
            there.insert(what.to_owned(), there_now);
        }
        Ok(there)
    }

    /// Ensures the groups and returns their ids. All groups are made first, because their rules name each
    /// other.
    pub(super) async fn groups(
        &mut self,
        wanted: &[Group],
        there: &BTreeMap<String, There>,
    ) -> Result<BTreeMap<&'static str, String>> {
        let mut ids = BTreeMap::new();
        for wanted in wanted {
            let found = there.get(wanted.what);
            let closed = closed(found);
            let part = compare_group(wanted.what, found, &closed);
            let is_made = self.mode.applies(&part);
            let id = match found {
                Some(found) => found.id.clone(),
                None if is_made => self.create_group(wanted).await?,
                None => NEW.to_owned(),
            };
            if is_made && !closed.is_empty() {
                self.let_out(wanted.what, &id, &closed).await?;
            }
            self.note(part);
            ids.insert(wanted.what, id);
        }
        for wanted in wanted {
            let open = there.get(wanted.what).map(|there| there.open.as_slice()).unwrap_or_default();
            self.rules(wanted, open, &ids).await?;
        }
        Ok(ids)
    }

    async fn rules(
        &mut self,
        wanted: &Group,
        open: &[Open],
        ids: &BTreeMap<&'static str, String>,
    ) -> Result<()> {
        let group = ids.get(wanted.what).map_or(NEW, String::as_str);
        let comparison = compare(wanted, open, ids);
        for (rule, exists) in &comparison.wanted {
            self.note(Part::found(describe(wanted.what, rule.port, &source(&rule.from)), *exists));
        }
        for open in &comparison.surplus {
            self.note(Part::removed(describe(wanted.what, open.port, &open.to.to_string())));
        }
        if self.mode == crate::part::RunMode::Plan {
            return Ok(());
        }
        for (port, permission) in permissions(&comparison.missing) {
            let open = self.aws.ec2.authorize_security_group_ingress().group_id(group);
            let open = open.ip_permissions(permission);
            let opened = async || {
                let opened = open.clone().send().await;
                opened.step(|| format!("open port {port} of the group {}", wanted.what))
            };
            // The rules name other groups, which may be just as new.
            exists_is_fine(self.aws.patience.depends_on(group, opened).await.map(drop))?;
        }
        for (port, permission) in permissions(&comparison.surplus) {
            let close = self.aws.ec2.revoke_security_group_ingress().group_id(group);
            let close = close.ip_permissions(permission);
            let closed = async || {
                let closed = close.clone().send().await;
                closed.step(|| format!("close port {port} of the group {}", wanted.what))
            };
            found(self.aws.patience.settled(closed).await)?;
        }
        Ok(())
    }

    async fn let_out(&self, what: &str, group: &str, to: &[Cidr]) -> Result<()> {
        for block in to {
            let everything = IpPermission::builder().ip_protocol(EVERYTHING);
            let open = self.aws.ec2.authorize_security_group_egress().group_id(group);
            let open = open.ip_permissions(towards(everything, *block).build());
            let opened = async || {
                let opened = open.clone().send().await;
                opened.step(|| format!("let the group {what} out to {block}"))
            };
            exists_is_fine(self.aws.patience.depends_on(group, opened).await.map(drop))?;
        }
        Ok(())
    }

    async fn create_group(&self, wanted: &Group) -> Result<String> {
        let name = self.aws.names.stack.resource(wanted.what);
        let create = self
            .aws
            .ec2
            .create_security_group()
            .set_vpc_id(self.vpc.clone())
            .group_name(&name)
            .description(wanted.description)
            .tag_specifications(tagged(self.aws, ResourceType::SecurityGroup, wanted.what));
        let make = async || {
            let created = create.clone().send().await;
            let created = created.step(|| format!("create the security group {name}"))?;
            id(created.group_id(), "security group")
        };
        let find = async || -> Result<Option<String>> {
            Ok(self.find_groups().await?.remove(wanted.what).map(|there| there.id))
        };
        self.aws.patience.made(self.vpc.as_deref(), make, find).await
    }
}

/// Returns the blocks to which a group does not allow all egress. The egress of a new group is unknown until
/// it is read, so IPv6 is opened in any case: opening it twice does nothing.
fn closed(there: Option<&There>) -> Vec<Cidr> {
    let is_closed = |block: &Cidr| match there {
        Some(there) => !there.out.contains(block),
        None => !block.is_ipv4(),
    };
    Cidr::world().into_iter().filter(is_closed).collect()
}

fn compare_group(what: &str, there: Option<&There>, closed: &[Cidr]) -> Part {
    let what = format!("security group {what}");
    let differs = closed.iter().map(|block| format!("nothing gets out to {block}"));
    match there {
        None => Part::created(what),
        Some(_) => Part::compared(what, differs.collect()),
    }
}

struct Comparison<'a> {
    /// Each rule, and whether it exists.
    wanted: Vec<(&'a Rule, bool)>,
    missing: Vec<Open>,
    surplus: Vec<Open>,
}

fn compare<'a>(wanted: &'a Group, open: &[Open], ids: &BTreeMap<&'static str, String>) -> Comparison<'a> {
    let as_open = |rule: &Rule| Open {
        port: rule.port,
        to: match rule.from {
            Source::Block(block) => To::Block(block),
            Source::Group(what) => To::Group(ids.get(what).map_or(NEW, String::as_str).to_owned()),
        },
    };
    let rules: Vec<(&Rule, Open)> = wanted.rules.iter().map(|rule| (rule, as_open(rule))).collect();
    let is_surplus = |there: &&Open| {
        matches!(there.to, To::Block(_))
            && wanted.closed_to_others.contains(&there.port)
            && !rules.iter().any(|(_, rule)| rule == *there)
    };
    Comparison {
        wanted: rules.iter().map(|(rule, as_open)| (*rule, open.contains(as_open))).collect(),
        missing: rules.iter().map(|(_, rule)| rule).filter(|rule| !open.contains(rule)).cloned().collect(),
        surplus: open.iter().filter(is_surplus).cloned().collect(),
    }
}

/// Makes one permission for each port, so that its blocks are opened or closed together.
fn permissions(rules: &[Open]) -> BTreeMap<u16, IpPermission> {
    let mut ports: BTreeMap<u16, Vec<&To>> = BTreeMap::new();
    for rule in rules {
        ports.entry(rule.port).or_default().push(&rule.to);
    }
    let permission = |port: u16, to: Vec<&To>| {
        let number = i32::from(port);
        let tcp = IpPermission::builder().ip_protocol("tcp").from_port(number).to_port(number);
        let permission = to.into_iter().fold(tcp, |permission, to| match to {
            To::Block(block) => towards(permission, *block),
            To::Group(id) => permission.user_id_group_pairs(UserIdGroupPair::builder().group_id(id).build()),
        });
        permission.build()
    };
    ports.into_iter().map(|(port, to)| (port, permission(port, to))).collect()
}

fn towards(permission: IpPermissionBuilder, block: Cidr) -> IpPermissionBuilder {
    let text = block.to_string();
    match block.is_ipv4() {
        true => permission.ip_ranges(IpRange::builder().cidr_ip(text).build()),
        false => permission.ipv6_ranges(Ipv6Range::builder().cidr_ipv6(text).build()),
    }
}

/// Returns the blocks that a group allows all egress to.
fn out(group: &SecurityGroup) -> Vec<Cidr> {
    let everything = group.ip_permissions_egress().iter().filter(|it| it.ip_protocol() == Some(EVERYTHING));
    everything.flat_map(blocks_of).filter_map(|text| text.parse().ok()).collect()
}

fn blocks_of(permission: &IpPermission) -> impl Iterator<Item = &str> {
    let ipv4 = permission.ip_ranges().iter().filter_map(IpRange::cidr_ip);
    ipv4.chain(permission.ipv6_ranges().iter().filter_map(Ipv6Range::cidr_ipv6))
}

/// Returns everything that a group allows in on exactly one TCP port. A block that cannot be parsed was not
/// made by a deployment.
fn open(group: &SecurityGroup) -> Vec<Open> {
    let mut open = Vec::new();
    for permission in group.ip_permissions() {
        let ports = (permission.from_port(), permission.to_port());
        let (Some(from), Some(to)) = ports else { continue };
        let Ok(port) = u16::try_from(from) else { continue };
        if from != to || permission.ip_protocol() != Some("tcp") {
            continue;
        }
        let blocks = blocks_of(permission).filter_map(|text| text.parse().ok()).map(To::Block);
        let groups = permission.user_id_group_pairs().iter().filter_map(UserIdGroupPair::group_id);
        let groups = groups.map(|id| To::Group(id.to_owned()));
        open.extend(blocks.chain(groups).map(|to| Open { port, to }));
    }
    open
}

fn describe(group: &str, port: u16, from: &str) -> String {
    format!("port {port} of security group {group} from {from}")
}

fn source(from: &Source) -> String {
    match from {
        Source::Block(block) => block.to_string(),
        Source::Group(what) => (*what).to_owned(),
    }
}

impl std::fmt::Display for To {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Block(block) => block.fmt(f),
            Self::Group(id) => f.write_str(id),
        }
    }
}

pub(super) async fn delete(aws: &Aws, vpc: &str) -> Result<Vec<Part>> {
    let ec2 = &aws.ec2;
    let filters = [filter("vpc-id", vpc), stack_filter(aws)];
    let groups = ec2.describe_security_groups().set_filters(Some(filters.to_vec())).send().await;
    let groups = groups.step(|| "list the security groups".to_owned())?;
    // Groups name each other in their rules, and a named group cannot be deleted.
    for group in groups.security_groups() {
        let (Some(id), rules) = (group.group_id(), group.ip_permissions()) else { continue };
        if !rules.is_empty() {
            let revoke = ec2.revoke_security_group_ingress().group_id(id);
            let revoke = revoke.set_ip_permissions(Some(rules.to_vec()));
            let revoked = async || revoke.clone().send().await.step(|| format!("close {id}"));
            found(aws.patience.settled(revoked).await)?;
        }
    }
    let mut parts = Vec::new();
    for id in groups.security_groups().iter().filter_map(|group| group.group_id()) {
        let delete = ec2.delete_security_group().group_id(id);
        let deleted = async || delete.clone().send().await.step(|| format!("delete {id}"));
        found(aws.patience.settled(deleted).await)?;
        parts.push(Part::removed(format!("security group {id}")));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::stub::Stub;
    use crate::part::RunMode;

    fn block(text: &str) -> Cidr {
        text.parse().expect(text)
    }

    fn lb(from: &[&str]) -> Group {
        let rule = |text: &&str| Rule { port: 5000, from: Source::Block(block(text)) };
        let admin = Rule { port: 9000, from: Source::Group("reconciler") };
        Group {
            what: "lb",
            description: "",
            rules: from.iter().map(rule).chain([admin]).collect(),
            closed_to_others: vec![5000, 5443],
        }
    }

    fn opened(port: u16, text: &str) -> Open {
        let to = text.parse().map_or_else(|_| To::Group(text.to_owned()), To::Block);
        Open { port, to }
    }

    #[test]
    fn another_block_takes_the_place_of_the_one_before() {
        let ids = BTreeMap::from([("lb", "sg-1".to_owned()), ("reconciler", "sg-2".to_owned())]);
        let there = [
            opened(5000, "0.0.0.0/0"),
            opened(5000, "2001:db8::/32"),
            opened(5443, "0.0.0.0/0"),
            opened(9000, "sg-2"),
            // The operator's own rules: for another port, and for a group.
            opened(22, "203.0.113.7/32"),
            opened(5000, "sg-9"),
        ];
        let wanted = lb(&["203.0.113.0/24", "2001:db8::/32"]);
        let comparison = compare(&wanted, &there, &ids);
        assert_eq!(comparison.missing, [opened(5000, "203.0.113.0/24")]);
        assert_eq!(comparison.surplus, [opened(5000, "0.0.0.0/0"), opened(5443, "0.0.0.0/0")]);
        let exists: Vec<bool> = comparison.wanted.iter().map(|(_, exists)| *exists).collect();
        assert_eq!(exists, [false, true, true]);
    }

    #[test]
    fn both_families_of_a_port_are_in_one_permission() {
        let rules = [opened(5000, "0.0.0.0/0"), opened(5000, "::/0"), opened(5443, "::/0")];
        let permissions = permissions(&rules);
        assert_eq!(permissions.len(), 2);
        let first = &permissions[&5000];
        assert_eq!((first.ip_ranges().len(), first.ipv6_ranges().len()), (1, 1));
        let group = SecurityGroup::builder().set_ip_permissions(Some(permissions.into_values().collect()));
        assert_eq!(open(&group.build()), rules);
    }

    fn there(out: &[&str]) -> There {
        let out = out.iter().map(|text| block(text)).collect();
        There { id: "sg-1".to_owned(), open: Vec::new(), out }
    }

    #[test]
    fn a_group_that_is_closed_towards_ipv6_is_opened() {
        let of_before = there(&["0.0.0.0/0"]);
        let closed_now = closed(Some(&of_before));
        assert_eq!(closed_now, [block("::/0")]);
        let part = compare_group("lb", Some(&of_before), &closed_now);
        assert_eq!(part.differs, ["nothing gets out to ::/0"]);
        assert_eq!(closed(Some(&there(&["0.0.0.0/0", "::/0"]))), []);
    }

    #[test]
    fn a_rule_for_one_port_does_not_open_a_group() {
        let one_port = IpPermission::builder().ip_protocol("tcp").from_port(443).to_port(443);
        let one_port = towards(one_port, block("::/0")).build();
        let all = towards(IpPermission::builder().ip_protocol("-1"), block("0.0.0.0/0")).build();
        let group =
            SecurityGroup::builder().ip_permissions_egress(one_port).ip_permissions_egress(all).build();
        assert_eq!(out(&group), [block("0.0.0.0/0")]);
    }

    #[tokio::test]
    async fn a_group_gets_the_missing_rule_for_ipv6_out() {
        let wanted = Group { what: "lb", description: "", rules: Vec::new(), closed_to_others: Vec::new() };
        for exists in [false, true] {
            let stub = Stub::default()
                .answers("CreateSecurityGroup", "<groupId>sg-1</groupId>")
                .refuses("AuthorizeSecurityGroupEgress", "InvalidGroup.NotFound")
                .answers("AuthorizeSecurityGroupEgress", "<return>true</return>");
            let aws = stub.serve().await;
            let vpc = Some("vpc-1".to_owned());
            let mut site = Site { aws: &aws, mode: RunMode::Apply, vpc, parts: Vec::new() };
            let found = exists.then(|| ("lb".to_owned(), there(&["0.0.0.0/0"])));
            site.groups(std::slice::from_ref(&wanted), &found.into_iter().collect()).await.expect("opened");
            assert_eq!(stub.count("CreateSecurityGroup"), usize::from(!exists));
            assert_eq!(stub.count("AuthorizeSecurityGroupEgress"), 2, "the group exists: {exists}");
        }
    }
}
