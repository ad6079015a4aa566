//! Route tables, their subnets and their routes. If another process adds the route at the same time, AWS's
//! error counts as success. A route whose gateway is gone or wrong is replaced.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{ResourceType, RouteState};

use super::subnet::Placed;
use super::{Site, exists_is_fine, filter, id, name_in_stack, stack_filter, tagged};
use crate::aws::Aws;
use crate::blueprint::{Gateway, Route, RouteTable};
use crate::error::{Result, Step as _, found};
use crate::part::{NEW, Part};

struct There {
    id: String,
    subnets: Vec<String>,
    routes: Vec<Leads>,
}

/// An existing route.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leads {
    to: String,
    /// The id of a gateway; `None` for a route of another kind.
    via: Option<String>,
    is_lost: bool,
}

/// The fault of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Missing,
    Elsewhere,
}

impl Site<'_> {
    /// Ensures the tables and returns their ids.
    pub(super) async fn route_tables(
        &mut self,
        wanted: &[RouteTable],
        subnets: &[Placed],
        gateways: &BTreeMap<&'static str, String>,
    ) -> Result<Vec<String>> {
        let mut found = self.find_route_tables().await?;
        let mut tables = Vec::new();
        for wanted in wanted {
            let there = found.remove(&wanted.what);
            let of_side = subnets.iter().filter(|subnet| subnet.side == wanted.side);
            let of_side: Vec<&str> = of_side.map(|subnet| subnet.spec.id.as_str()).collect();
            tables.push(self.route_table(wanted, there, &of_side, gateways).await?);
        }
        Ok(tables)
    }

    async fn route_table(
        &mut self,
        wanted: &RouteTable,
        there: Option<There>,
        subnets: &[&str],
        gateways: &BTreeMap<&'static str, String>,
    ) -> Result<String> {
        let what = format!("route table {}", wanted.what);
        let there_or_empty = there.as_ref();
        let missing_subnets: Vec<&&str> = subnets
            .iter()
            .filter(|id| !there_or_empty.is_some_and(|there| there.subnets.iter().any(|it| it == **id)))
            .collect();
        let routes = there_or_empty.map(|there| there.routes.as_slice()).unwrap_or_default();
        let wrong_routes: Vec<(&Route, Wrong)> =
            wanted.routes.iter().filter_map(|route| Some((route, wrong(route, routes, gateways)?))).collect();
        let part = match &there {
            None => Part::created(what),
            Some(_) => Part::compared(what, differs(&missing_subnets, &wrong_routes)),
        };
        let mut table = there.map_or(NEW.to_owned(), |there| there.id);
        if self.mode.applies(&part) {
            if table == NEW {
                table = self.create_route_table(&wanted.what).await?;
            }
            for subnet in missing_subnets {
                let associate =
                    self.aws.ec2.associate_route_table().route_table_id(&table).subnet_id(*subnet);
                let done = async || {
                    let done = associate.clone().send().await;
                    done.step(|| format!("use the {} route table in {subnet}", wanted.what))
                };
                let both = format!("{table} and {subnet}");
                exists_is_fine(self.aws.patience.depends_on(&both, done).await.map(drop))?;
            }
            for (route, wrong) in wrong_routes {
                let gateway = gateways.get(route.via.what()).map_or(NEW, String::as_str);
                match wrong {
                    Wrong::Missing => self.create_route(&table, route, gateway).await?,
                    Wrong::Elsewhere => self.replace_route(&table, route, gateway).await?,
                }
            }
        }
        self.note(part);
        Ok(table)
    }

    async fn find_route_tables(&self) -> Result<BTreeMap<String, There>> {
        let Some(filters) = self.filters() else { return Ok(BTreeMap::new()) };
        let described = self.aws.ec2.describe_route_tables().set_filters(Some(filters)).send().await;
        let described = described.step(|| "look for the route tables".to_owned())?;
        let mut tables = BTreeMap::new();
        for table in described.route_tables() {
            let Some(what) = name_in_stack(self.aws, table.tags()) else { continue };
            let associations = table.associations().iter();
            let routes = table.routes().iter();
            let there = There {
                id: id(table.route_table_id(), "route table")?,
                subnets: associations.filter_map(|it| it.subnet_id().map(str::to_owned)).collect(),
                routes: routes.filter_map(leads).collect(),
            };
            let before = tables.get(what);
            if before.is_none_or(|before: &There| before.subnets.len() < there.subnets.len()) {
                tables.insert(what.to_owned(), there);
            }
        }
        Ok(tables)
    }

    async fn create_route_table(&self, what: &str) -> Result<String> {
        let create = self
            .aws
            .ec2
            .create_route_table()
            .client_token(self.token(what))
            .set_vpc_id(self.vpc.clone())
            .tag_specifications(tagged(self.aws, ResourceType::RouteTable, what));
        let created = async || create.clone().send().await.step(|| format!("create the {what} route table"));
        let created = self.aws.patience.depends_on(self.vpc_id(), created).await?;
        id(created.route_table().and_then(|table| table.route_table_id()), "route table")
    }

    async fn create_route(&self, table: &str, route: &Route, gateway: &str) -> Result<()> {
        let ends = Ends::of(route, gateway);
        let create = self
            .aws
            .ec2
            .create_route()
            .route_table_id(table)
            .set_gateway_id(ends.gateway)
            .set_egress_only_internet_gateway_id(ends.egress_only_gateway)
            .set_destination_cidr_block(ends.ipv4)
            .set_destination_ipv6_cidr_block(ends.ipv6);
        let created = async || create.clone().send().await.step(|| format!("add the route to {}", route.to));
        let both = format!("{table} and {gateway}");
        exists_is_fine(self.aws.patience.depends_on(&both, created).await.map(drop))
    }

    async fn replace_route(&self, table: &str, route: &Route, gateway: &str) -> Result<()> {
        let ends = Ends::of(route, gateway);
        let replace = self
            .aws
            .ec2
            .replace_route()
            .route_table_id(table)
            .set_gateway_id(ends.gateway)
            .set_egress_only_internet_gateway_id(ends.egress_only_gateway)
            .set_destination_cidr_block(ends.ipv4)
            .set_destination_ipv6_cidr_block(ends.ipv6);
        let replaced =
            async || replace.clone().send().await.step(|| format!("replace the route to {}", route.to));
        let both = format!("{table} and {gateway}");
        self.aws.patience.depends_on(&both, replaced).await.map(drop)
    }
}

/// Where a route leads from and to, in the parameters that `CreateRoute` and `ReplaceRoute` share.
#[derive(Default)]
struct Ends {
    gateway: Option<String>,
    egress_only_gateway: Option<String>,
    ipv4: Option<String>,
    ipv6: Option<String>,
}

impl Ends {
    fn of(route: &Route, gateway: &str) -> Self {
        let mut ends = Self::default();
        let via = match route.via {
            Gateway::Internet => &mut ends.gateway,
            Gateway::EgressOnly => &mut ends.egress_only_gateway,
        };
        *via = Some(gateway.to_owned());
        let to = if route.to.contains(':') { &mut ends.ipv6 } else { &mut ends.ipv4 };
        *to = Some(route.to.to_owned());
        ends
    }
}

fn leads(route: &aws_sdk_ec2::types::Route) -> Option<Leads> {
    let to = route.destination_cidr_block().or_else(|| route.destination_ipv6_cidr_block())?;
    let via = route.gateway_id().or_else(|| route.egress_only_internet_gateway_id());
    Some(Leads {
        to: to.to_owned(),
        via: via.filter(|via| !via.is_empty()).map(str::to_owned),
        is_lost: route.state() == Some(&RouteState::Blackhole),
    })
}

/// Returns the wrong routes. A route through anything but a gateway was made by the operator, and stays.
fn wrong(wanted: &Route, there: &[Leads], gateways: &BTreeMap<&'static str, String>) -> Option<Wrong> {
    let Some(there) = there.iter().find(|route| route.to == wanted.to) else { return Some(Wrong::Missing) };
    let gateway = gateways.get(wanted.via.what());
    let is_elsewhere = there.via.is_some() && there.via.as_ref() != gateway;
    (there.is_lost || is_elsewhere).then_some(Wrong::Elsewhere)
}

fn differs(subnets: &[&&str], routes: &[(&Route, Wrong)]) -> Vec<String> {
    let subnets = subnets.iter().map(|id| format!("not used in {id}"));
    let routes = routes.iter().map(|(route, wrong)| match wrong {
        Wrong::Missing => format!("no route to {}", route.to),
        Wrong::Elsewhere => format!("the route to {} does not lead to the stack's gateway", route.to),
    });
    subnets.chain(routes).collect()
}

/// Disassociates every subnet from the stack's tables.
pub(super) async fn release(aws: &Aws, vpc: &str) -> Result<()> {
    for table in list(aws, vpc).await? {
        for association in table.associations() {
            if let (Some(id), Some(_)) = (association.route_table_association_id(), association.subnet_id()) {
                let release = aws.ec2.disassociate_route_table().association_id(id);
                let done = async || {
                    let done = release.clone().send().await;
                    done.step(|| format!("release the route table association {id}"))
                };
                found(aws.patience.settled(done).await)?;
            }
        }
    }
    Ok(())
}

pub(super) async fn delete(aws: &Aws, vpc: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for id in list(aws, vpc).await?.iter().filter_map(|table| table.route_table_id()) {
        let delete = aws.ec2.delete_route_table().route_table_id(id);
        let deleted = async || delete.clone().send().await.step(|| format!("delete {id}"));
        found(aws.patience.settled(deleted).await)?;
        parts.push(Part::removed(format!("route table {id}")));
    }
    Ok(parts)
}

async fn list(aws: &Aws, vpc: &str) -> Result<Vec<aws_sdk_ec2::types::RouteTable>> {
    let filters = [filter("vpc-id", vpc), stack_filter(aws)];
    let tables = aws.ec2.describe_route_tables().set_filters(Some(filters.to_vec())).send().await;
    Ok(tables.step(|| "list the route tables".to_owned())?.route_tables.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::stub::Stub;
    use crate::blueprint::Side;
    use crate::part::RunMode;

    fn judged(via: Option<&str>, is_lost: bool) -> Option<Wrong> {
        let wanted = Route { to: "::/0", via: Gateway::EgressOnly };
        let there = Leads { to: "::/0".to_owned(), via: via.map(str::to_owned), is_lost };
        let gateways = BTreeMap::from([(Gateway::EgressOnly.what(), "eigw-2".to_owned())]);
        wrong(&wanted, &[there], &gateways)
    }

    #[test]
    fn a_route_that_leads_nowhere_is_replaced() {
        assert_eq!(judged(Some("eigw-2"), false), None);
        assert_eq!(judged(Some("eigw-2"), true), Some(Wrong::Elsewhere));
        assert_eq!(judged(Some("eigw-1"), false), Some(Wrong::Elsewhere));
    }

    /// Ensures a table that has these routes and needs one to all IPv6 addresses, through `eigw-2`.
    async fn ensured(routes: Vec<Leads>) -> Stub {
        let stub = Stub::default()
            .answers("CreateRoute", "<return>true</return>")
            .answers("ReplaceRoute", "<return>true</return>");
        let aws = stub.serve().await;
        let vpc = Some("vpc-1".to_owned());
        let mut site = Site { aws: &aws, mode: RunMode::Apply, vpc, parts: Vec::new() };
        let route = Route { to: "::/0", via: Gateway::EgressOnly };
        let wanted =
            RouteTable { what: "private".to_owned(), side: Side::Private, routes: Vec::from([route]) };
        let there = There { id: "rtb-1".to_owned(), subnets: Vec::new(), routes };
        let gateways = BTreeMap::from([(Gateway::EgressOnly.what(), "eigw-2".to_owned())]);
        site.route_table(&wanted, Some(there), &[], &gateways).await.expect("ensured");
        stub
    }

    #[tokio::test]
    async fn a_lost_route_is_led_to_the_gateway_of_the_stack() {
        let lost = Leads { to: "::/0".to_owned(), via: Some("eigw-1".to_owned()), is_lost: true };
        let stub = ensured(Vec::from([lost])).await;
        assert_eq!((stub.count("CreateRoute"), stub.count("ReplaceRoute")), (0, 1));
        assert!(stub.last("ReplaceRoute").contains("EgressOnlyInternetGatewayId=eigw-2"));
    }

    #[tokio::test]
    async fn a_missing_route_is_added() {
        let stub = ensured(Vec::new()).await;
        assert_eq!((stub.count("CreateRoute"), stub.count("ReplaceRoute")), (1, 0));
        assert!(stub.last("CreateRoute").contains("EgressOnlyInternetGatewayId=eigw-2"));
    }

    #[test]
    fn a_route_of_the_operator_stays() {
        assert_eq!(judged(None, false), None);
    }
}
