//! Route tables, their subnets and their routes. A route that somebody adds meanwhile is an error that
//! means done.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::ResourceType;

use super::subnet::Placed;
use super::{Site, exists_is_fine, filter, id, name_in_stack, stack_filter, tagged};
use crate::aws::Aws;
use crate::blueprint::{Gateway, Route, RouteTable};
use crate::error::{Result, Step as _, found};
use crate::part::{NEW, Part};

struct There {
    id: String,
    subnets: Vec<String>,
    destinations: Vec<String>,
}

impl Site<'_> {
    /// The tables' ids.
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
        let missing_routes: Vec<&Route> = wanted
            .routes
            .iter()
            .filter(|route| {
                !there_or_empty.is_some_and(|there| there.destinations.iter().any(|to| to == route.to))
            })
            .collect();
        let part = match &there {
            None => Part::created(what),
            Some(_) => Part::compared(what, differs(&missing_subnets, &missing_routes)),
        };
        let mut table = there.map_or(NEW.to_owned(), |there| there.id);
        if self.doing.applies(&part) {
            if table == NEW {
                table = self.create_route_table(&wanted.what).await?;
            }
            for subnet in missing_subnets {
                let use_it = self.aws.ec2.associate_route_table().route_table_id(&table).subnet_id(*subnet);
                let done = use_it.send().await.map(drop);
                exists_is_fine(done.step(|| format!("use the {} route table in {subnet}", wanted.what)))?;
            }
            for route in missing_routes {
                self.create_route(&table, route, gateways).await?;
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
                destinations: routes
                    .filter_map(|it| it.destination_cidr_block().or_else(|| it.destination_ipv6_cidr_block()))
                    .map(str::to_owned)
                    .collect(),
            };
            tables.insert(what.to_owned(), there);
        }
        Ok(tables)
    }

    async fn create_route_table(&self, what: &str) -> Result<String> {
        let created = self
            .aws
            .ec2
            .create_route_table()
            .client_token(self.token(what))
            .set_vpc_id(self.vpc.clone())
            .tag_specifications(tagged(self.aws, ResourceType::RouteTable, what))
            .send()
            .await
            .step(|| format!("create the {what} route table"))?;
        id(created.route_table().and_then(|table| table.route_table_id()), "route table")
    }

    async fn create_route(
        &self,
        table: &str,
        route: &Route,
        gateways: &BTreeMap<&'static str, String>,
    ) -> Result<()> {
        let gateway = gateways.get(route.via.what()).map_or(NEW, String::as_str);
        let create = self.aws.ec2.create_route().route_table_id(table);
        let create = match route.via {
            Gateway::Internet => create.gateway_id(gateway),
            Gateway::EgressOnly => create.egress_only_internet_gateway_id(gateway),
        };
        let create = if route.to.contains(':') {
            create.destination_ipv6_cidr_block(route.to)
        } else {
            create.destination_cidr_block(route.to)
        };
        let created = create.send().await.map(drop);
        exists_is_fine(created.step(|| format!("add the route to {}", route.to)))
    }
}

fn differs(subnets: &[&&str], routes: &[&Route]) -> Vec<String> {
    let subnets = subnets.iter().map(|id| format!("not used in {id}"));
    subnets.chain(routes.iter().map(|route| format!("no route to {}", route.to))).collect()
}

/// Takes every subnet out of the stack's tables.
pub(super) async fn release(aws: &Aws, vpc: &str) -> Result<()> {
    for table in list(aws, vpc).await? {
        for association in table.associations() {
            if let (Some(id), Some(_)) = (association.route_table_association_id(), association.subnet_id()) {
                let done = aws.ec2.disassociate_route_table().association_id(id).send().await;
                found(done.step(|| format!("release the route table association {id}")))?;
            }
        }
    }
    Ok(())
}

pub(super) async fn delete(aws: &Aws, vpc: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for id in list(aws, vpc).await?.iter().filter_map(|table| table.route_table_id()) {
        found(aws.ec2.delete_route_table().route_table_id(id).send().await.step(|| format!("delete {id}")))?;
        parts.push(Part::removed(format!("route table {id}")));
    }
    Ok(parts)
}

async fn list(aws: &Aws, vpc: &str) -> Result<Vec<aws_sdk_ec2::types::RouteTable>> {
    let filters = [filter("vpc-id", vpc), stack_filter(aws)];
    let tables = aws.ec2.describe_route_tables().set_filters(Some(filters.to_vec())).send().await;
    Ok(tables.step(|| "list the route tables".to_owned())?.route_tables.unwrap_or_default())
}
