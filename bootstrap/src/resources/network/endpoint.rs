//! Endpoints in the VPC: S3 through the route tables; the API of EC2, where it has no IPv6 address,
//! through interfaces in the private subnets.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{ResourceType, VpcEndpointType};
use fleet::release::SubnetSpec;

use super::{Site, filter, name_in_stack, tagged};
use crate::aws::Aws;
use crate::blueprint::{Endpoint, EndpointKind};
use crate::error::{Result, Step as _, found};
use crate::part::{NEW, Part};

impl Site<'_> {
    pub(super) async fn endpoints(
        &mut self,
        wanted: &[Endpoint],
        tables: &[String],
        subnets: &[SubnetSpec],
        groups: &BTreeMap<&'static str, String>,
    ) -> Result<()> {
        let there = match &self.vpc {
            Some(vpc) => find(self.aws, vpc).await?,
            None => Vec::new(),
        };
        for wanted in wanted {
            let exists = there.iter().any(|endpoint| endpoint.what == wanted.what);
            let part = Part::found(format!("endpoint {}", wanted.service), exists);
            if self.doing.applies(&part) {
                let create = self
                    .aws
                    .ec2
                    .create_vpc_endpoint()
                    .client_token(self.token(wanted.what))
                    .set_vpc_id(self.vpc.clone())
                    .service_name(&wanted.service)
                    .tag_specifications(tagged(self.aws, ResourceType::VpcEndpoint, wanted.what));
                let create = match wanted.kind {
                    EndpointKind::Gateway => create
                        .vpc_endpoint_type(VpcEndpointType::Gateway)
                        .set_route_table_ids(Some(tables.to_vec())),
                    EndpointKind::Interface { group } => create
                        .vpc_endpoint_type(VpcEndpointType::Interface)
                        .set_subnet_ids(Some(subnets.iter().map(|subnet| subnet.id.clone()).collect()))
                        .security_group_ids(groups.get(group).map_or(NEW, String::as_str))
                        .private_dns_enabled(true),
                };
                create.send().await.step(|| format!("create the endpoint {}", wanted.service))?;
            }
            self.note(part);
        }
        Ok(())
    }
}

struct There {
    id: String,
    what: String,
}

async fn find(aws: &Aws, vpc: &str) -> Result<Vec<There>> {
    let described = aws.ec2.describe_vpc_endpoints().filters(filter("vpc-id", vpc)).send().await;
    let described = described.step(|| "look for the endpoints".to_owned())?;
    let live = described.vpc_endpoints().iter().filter(|endpoint| {
        !endpoint.state().is_some_and(|state| state.as_str().to_ascii_lowercase().starts_with("delet"))
    });
    let there = live.filter_map(|endpoint| {
        let what = name_in_stack(aws, endpoint.tags()).unwrap_or_default().to_owned();
        Some(There { id: endpoint.vpc_endpoint_id()?.to_owned(), what })
    });
    Ok(there.collect())
}

pub(super) async fn exists(aws: &Aws, vpc: &str, what: &str) -> Result<bool> {
    Ok(find(aws, vpc).await?.iter().any(|endpoint| endpoint.what == what))
}

pub(super) async fn delete(aws: &Aws, vpc: &str) -> Result<Vec<Part>> {
    let ids: Vec<String> = find(aws, vpc).await?.into_iter().map(|endpoint| endpoint.id).collect();
    if !ids.is_empty() {
        let deleted = aws.ec2.delete_vpc_endpoints().set_vpc_endpoint_ids(Some(ids.clone())).send().await;
        found(deleted.step(|| "delete the endpoints".to_owned()))?;
    }
    Ok(ids.into_iter().map(|id| Part::removed(format!("endpoint {id}"))).collect())
}
